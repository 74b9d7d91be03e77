"""What a batcher notes of its batches for traces."""

from __future__ import annotations

from services.call import Call
from services.scheduling.job import Slice
from services.telemetry.trace import TRACING, Batch, Trace, of_monotonic


class Notes:
    """Notes the batches of one operation, where they served a traced request; times are `time.monotonic()` seconds.

    Args:
        model: name, version, digest and operation.
    """

    def __init__(self, model: tuple[str, str, str, str]) -> None:
        self._model = model

    def batch(self, batch: list[Slice], begin: float, end: float, error: str = "") -> None:
        """Note a batch; `error` is the type of the exception that ended it."""
        if TRACING.tracer is None:
            return
        served = [
            (trace, None if part.start else of_monotonic(part.job.enqueued))
            for part in batch
            if (trace := part.job.call.trace) is not None
        ]
        if served:
            self._note(served, sum(part.stop - part.start for part in batch), len(batch), begin, end, error)

    def alone(self, call: Call, items: int, begin: float, end: float, error: str = "") -> None:
        """Note a run for one request, which did not wait for it."""
        if call.trace is not None:
            self._note([(call.trace, None)], items, 1, begin, end, error)

    def _note(
        self,
        served: list[tuple[Trace, float | None]],
        items: int,
        requests: int,
        begin: float,
        end: float,
        error: str,
    ) -> None:
        if TRACING.tracer is not None:
            times = of_monotonic(begin), of_monotonic(end)
            TRACING.tracer.batch(Batch(self._model, items, requests, *times, error), served)
