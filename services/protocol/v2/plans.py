"""What the JSON of a V2 request fixes: which outputs it asks for, where its tensors lie, the JSON of its answer.

A client that sends tensors of one shape sends the same JSON, a few hundred bytes, before each of them, or around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from services.protocol.v2.frames import Frame
from services.protocol.v2.inference import InferRequest, Output
from services.served import Arrays

KEPT = 256  # plans of a model
HEADS = 16  # numbers of images for which a plan keeps the JSON of the answer


@dataclass(frozen=True, slots=True)
class Place:
    """Where an input lies in the body."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int


class Plan:
    """A request without its tensors.

    Args:
        request: one that has been read.
        outputs: that it asks for.
        start: bytes of its JSON.
        frame: of its JSON; None: its inputs are all binary and of a datatype of fixed size.

    Attributes:
        length: bytes of the whole body; None with a frame, around which it varies.
        names: of the outputs.
    """

    __slots__ = ("_frame", "_heads", "_places", "_repeats", "_request", "length", "names", "outputs")

    def __init__(
        self, request: InferRequest, outputs: Sequence[Output], start: int, frame: Frame | None = None
    ) -> None:
        self._frame = frame
        self._request = replace(request, given={}, inputs={})  # without the body
        self.outputs = outputs
        self.names = frozenset(output.name for output in outputs)
        self._places = []
        for name, array in request.inputs.items() if frame is None else ():
            self._places.append(Place(name, array.dtype, array.shape, start))
            start += array.nbytes
        self.length = start if frame is None else None
        self._repeats = request.id is None and all(output.binary and not output.classification for output in outputs)
        self._heads: dict[int, bytes] = {}

    def request(self, body: bytes | bytearray, listed: bytes | None = None) -> InferRequest | None:
        """The request with the tensors of a body of `length` bytes, or with listed data, which are still to be read.

        None if such data are not what a list of numbers looks like.
        """
        if self._frame is not None:
            return None if listed is None else self._frame.request(listed)
        inputs = {place.name: np.ndarray(place.shape, place.dtype, body, place.start) for place in self._places}
        known = self._request
        return InferRequest({}, known.outputs, known.parameters, known.id, known.binary_output, inputs)

    def answer(self, arrays: Arrays) -> tuple[bytes, int] | None:
        """The body of an answer, and the length of its JSON, if the same JSON has been an answer before."""
        if not self._heads:
            return None
        outputs = [arrays[output.name] for output in self.outputs]
        head = self._heads.get(len(outputs[0]))
        if head is None:
            return None
        return b"".join([head, *[array.tobytes() for array in outputs]]), len(head)

    def keep(self, arrays: Arrays, head: bytes) -> None:
        """Note the JSON of an answer with these arrays, whose numbers of rows are equal."""
        if self._repeats and len(self._heads) < HEADS and all(arrays[name].dtype.kind != "O" for name in self.names):
            rows = {len(arrays[name]) for name in self.names}
            if len(rows) == 1:
                self._heads[rows.pop()] = head


class Plans:
    """The plans of one model, by the JSON of the request."""

    def __init__(self) -> None:
        self._plans: dict[bytes, Plan] = {}

    def find(self, text: bytes, length: int | None) -> Plan | None:
        """The plan for a body of that many bytes which begins with `text`, or whose frame is `text`: None."""
        plan = self._plans.get(text)
        return plan if plan is not None and plan.length == length else None

    def make(
        self, text: bytes, request: InferRequest, outputs: Sequence[Output], *, framed: bool = False
    ) -> Plan | None:
        """Note a request that has been read.

        None for one whose inputs are neither all binary and of fixed size nor in the frame `text`. One with an id is
        not asked again, so its frame is not looked at.
        """
        frame = Frame.of(text, request) if framed and request.id is None else None
        if frame is None and (framed or not request.inputs or request.size):
            return None
        if len(self._plans) >= KEPT:
            del self._plans[next(iter(self._plans))]
        plan = self._plans[text] = Plan(request, outputs, len(text), frame)
        return plan
