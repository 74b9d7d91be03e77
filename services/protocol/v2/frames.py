"""The JSON of a V2 request around the data of an input: what a client sends again with other pixels.

The list behind the first `"data"` is cut out of the text. What is left, the frame, is a few hundred bytes and fixes the
rest of the request, whatever the list holds.
"""

from __future__ import annotations

import math
from dataclasses import replace

from services.errors import DuetError
from services.protocol import json_slices
from services.protocol.v2.inference import Given, InferRequest, parse
from services.protocol.v2.tensors import plain_list

TEXT_BYTES = 1024  # of the longest JSON whose meaning is kept
DATA = b'"data"'


def split(body: bytes | bytearray, size: int) -> tuple[bytes, bytes | None]:
    """What may be known of the JSON of a body, and the list that is cut out of it.

    Whether the list is the data of an input is known when the body has been parsed, see `Frame.of`. No list is cut out
    of JSON that binary tensors follow, or where none is found. JSON that is too long to be kept is returned empty.

    Args:
        body: the whole one.
        size: of its JSON.
    """
    if size == len(body) <= json_slices.FLAT_BYTES:
        start = body.find(b"[", body.find(DATA)) + 1
        stop = body.find(b"]", start)
        if 0 < start < stop and size - (stop - start) <= TEXT_BYTES:
            return bytes(body[:start] + body[stop:]), bytes(body[start - 1 : stop + 1])
    return bytes(body[:size]) if size <= TEXT_BYTES else b"", None


class Frame:
    """A request without the data of one input.

    Args:
        request: without the list, so that these data are empty.
        name: of the input.
    """

    __slots__ = ("_given", "_name", "_request")

    def __init__(self, request: InferRequest, name: str) -> None:
        self._request = request
        self._name = name
        self._given = request.given[name]

    @classmethod
    def of(cls, text: bytes, request: InferRequest) -> Frame | None:
        """The frame of a request that has been parsed; None if its list is not the data of an input.

        The frame is JSON, too, so the list is one value of the text. If emptying it empties the data of one input and
        changes nothing else of the request, then any other list at this place is the data of that input.
        """
        try:
            bare = parse(text, len(text))
        except DuetError:
            return None
        empty = [name for name, given in bare.given.items() if given.data == []]
        if len(empty) != 1 or empty[0] not in request.given:
            return None
        frame = cls(bare, empty[0])
        return frame if frame._with(request.given[empty[0]]) == replace(request, inputs={}) else None

    def request(self, listed: bytes) -> InferRequest | None:
        """The request with these data; None if they are no JSON, or objects, which take long to parse."""
        known = self._given
        if known.datatype == "UINT8" and (plain := plain_list(listed)) and len(plain) == math.prod(known.shape):
            return self._with(Given(known.field, known.datatype, known.shape, memoryview(plain)))
        if b"{" in listed:
            return None
        try:
            values = json_slices.loads(listed)
        except json_slices.NotJSON:
            return None
        return self._with(Given(known.field, known.datatype, known.shape, values, b"e" in listed))  # true, false

    def _with(self, given: Given) -> InferRequest:
        known = self._request
        return InferRequest(
            known.given | {self._name: given},
            known.outputs,
            known.parameters,
            known.id,
            known.binary_output,
            size=known.size,
        )
