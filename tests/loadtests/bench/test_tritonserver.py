"""Triton's model repository follows the bundle; a wheel that lacks a program is reported."""

import sysconfig
from pathlib import Path

import pytest

from loadtests.bench.peers import tritonserver
from services.inference.bundle import load
from services.inference.registry import REFERENCE


def test_the_repository_has_the_signature_of_the_graph(tmp_path: Path) -> None:
    served = load(REFERENCE / "mnist-cnn")
    models = tritonserver.repository(tmp_path, served)
    text = (models / "mnist-cnn" / "config.pbtxt").read_text()
    assert "dims: [ 1, 28, 28 ]" in text
    assert "dims: [ 10 ]" in text
    assert f'string_value: "{served.graph_path("classify").absolute()}"' in text
    assert text.count("{") == text.count("}")
    compile((models / "mnist-cnn" / "1" / "model.py").read_text(), "model.py", "exec")


def test_a_wheel_without_the_program_for_this_python_is_reported(tmp_path: Path) -> None:
    (tmp_path / "wheel" / "backends" / "python").mkdir(parents=True)
    with pytest.raises(SystemExit, match="no program for Python"):
        tritonserver.backends(tmp_path / "made", tmp_path / "wheel")


def test_the_program_for_this_python_is_put_beside_the_backend(tmp_path: Path) -> None:
    stub = tmp_path / "wheel" / "python_backend_stubs" / sysconfig.get_python_version() / "triton_python_backend_stub"
    for file in (tmp_path / "wheel" / "backends" / "python" / "libtriton_python.so", stub):
        file.parent.mkdir(parents=True)
        file.write_text("")
    made = tritonserver.backends(tmp_path / "made", tmp_path / "wheel")
    assert {file.name for file in (made / "python").iterdir()} == {"libtriton_python.so", stub.name}
    assert (made / "python" / stub.name).stat().st_mode & 0o100


def test_an_environment_without_triton_is_reported(tmp_path: Path) -> None:
    served = load(REFERENCE / "mnist-cnn")
    with (
        pytest.raises(SystemExit, match="has no program for this machine"),
        tritonserver.triton(str(tmp_path / "bin" / "python"), served),
    ):
        pass


def test_every_row_has_a_floor() -> None:
    assert {floor.group for floor in tritonserver.FLOORS} == set(tritonserver.requests("m"))
