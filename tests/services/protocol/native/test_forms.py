"""Forms that are split and forms that are parsed give the same parts."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.errors import DuetError
from services.protocol.native.forms import Parts, _form, _whole, plain_form

MOST = 8
PLAIN = "multipart/form-data; boundary=b"
NAMES = st.text("abcdefghij_.-", min_size=1, max_size=8)
FILES = st.tuples(NAMES, NAMES, st.binary(max_size=200))
TEXTS = st.tuples(NAMES, st.text(max_size=20))


def parsed(content_type: str, content: bytes) -> Parts:
    return asyncio.run(_form(content_type, _whole(content), MOST))


def encoded(files: list[tuple[str, str, bytes]], texts: list[tuple[str, str]]) -> tuple[str, bytes]:
    """As a client encodes them."""
    data: dict[str, list[str]] = {}
    for name, text in texts:
        data.setdefault(name, []).append(text)
    parts = [(name, (file, content, "image/png")) for name, file, content in files]
    request = httpx.Request("POST", "http://x", files=parts or [("x", ("x", b"", "image/png"))], data=data)
    return request.headers["content-type"], request.read()


@given(st.lists(FILES, min_size=1, max_size=4), st.lists(TEXTS, max_size=3))
def test_what_a_client_sends_is_split_as_it_is_parsed(
    files: list[tuple[str, str, bytes]], texts: list[tuple[str, str]]
) -> None:
    content_type, content = encoded(files, texts)
    found = plain_form(content_type, content, MOST)
    assert found == parsed(content_type, content)
    assert found is not None


PIECES = st.sampled_from(
    [
        *(b"\r\n", b"--b", b"--b--", b"--", b"\n", b"\r", b"x", b"\r\n\r\n", b'"', b"\\", b"--bc", b"\xff", b"a; "),
        *(b"Content-Disposition: form-data", b"; name=a", b'; name="a"', b'; filename="f"', b'; filename="a;b"'),
        *(b"Content-Type: text/plain", b"; charset=latin-1", b"Content-Transfer-Encoding: base64", b"name*=utf-8''%61"),
    ]
)
PART = b'--b\r\nContent-Disposition: form-data; name="images"; filename="0.png"\r\n\r\nvalue\r\n'


@given(st.lists(PIECES | st.just(PART), max_size=12), st.booleans(), st.booleans())
def test_no_form_is_split_in_another_way_than_it_is_parsed(pieces: list[bytes], begins: bool, ends: bool) -> None:
    content = (PART if begins else b"") + b"".join(pieces) + (b"\r\n--b--\r\n" if ends else b"")
    found = plain_form(PLAIN, content, MOST)
    if found is not None:
        assert found == parsed(PLAIN, content)


@pytest.mark.parametrize(
    ("content_type", "content"),
    [
        (PLAIN, b""),
        (PLAIN, b"--b--\r\n"),
        (PLAIN, PART),
        (PLAIN, b"preamble\r\n" + PART + b"--b--"),
        (PLAIN, PART + b"--b--\r\nepilogue"),
        (PLAIN, PART * (MOST + 1) + b"--b--\r\n"),
        (PLAIN + "; charset=latin-1", PART + b"--b--\r\n"),
        ('multipart/form-data; boundary="b"', PART + b"--b--\r\n"),
        (PLAIN, PART.replace(b'"images"', b'"im\\"ages"') + b"--b--\r\n"),
        (PLAIN, PART.replace(b'; filename="0.png"', b"").replace(b"value", b"\xff") + b"--b--\r\n"),
    ],
)
def test_any_other_form_is_left_to_the_parser(content_type: str, content: bytes) -> None:
    assert plain_form(content_type, content, MOST) is None


def test_a_wrong_form_is_refused() -> None:
    with pytest.raises(DuetError, match="multipart body cannot be read"):
        parsed(PLAIN, b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n")
