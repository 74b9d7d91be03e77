"""A graph runs, from several threads too, or is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from services.inference.bundle import Bundle, BundleError
from services.inference.session import Session

MakeBundle = Callable[..., Bundle]


def test_a_graph_names_its_inputs_and_outputs(make_bundle: MakeBundle) -> None:
    session = Session(make_bundle().graph_path("classify"))
    assert (session.inputs, session.outputs) == (("images",), ("logits", "probabilities"))


def test_outputs_come_by_name_and_only_those_asked_for(make_bundle: MakeBundle) -> None:
    session = Session(make_bundle().graph_path("classify"))
    images = np.arange(8, dtype=np.uint8).reshape(2, 1, 2, 2)
    assert list(session.run({"images": images})) == ["logits", "probabilities"]
    assert session.run({"images": images}, ["logits"])["logits"].tolist() == [[6.0] * 3, [22.0] * 3]


def test_several_threads_may_share_a_session(make_bundle: MakeBundle) -> None:
    session = Session(make_bundle().graph_path("classify"), threads=2)
    images = [np.full((3, 1, 2, 2), i, np.uint8) for i in range(64)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda batch: session.run({"images": batch})["logits"], images))
    assert [answer[0, 0] for answer in answers] == [4.0 * i for i in range(64)]


@pytest.mark.parametrize("content", [b"", b"no graph"])
def test_a_file_that_is_no_graph_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "classify.onnx").write_bytes(content)
    with pytest.raises(BundleError, match=r"classify\.onnx: ONNX Runtime cannot load it"):
        Session(tmp_path / "classify.onnx")


def test_a_missing_graph_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"classify\.onnx: ONNX Runtime cannot load it"):
        Session(tmp_path / "classify.onnx")
