"""Times stages of device work without waiting for the device."""

import time

import torch

__all__ = ["Stopwatch"]


class Stopwatch:
    """Laps between marks: CUDA events where work is queued on a GPU, the clock elsewhere.

    Marking never synchronises; `seconds` may be asked once the last mark's work is known to be done,
    as it is after a copy to the host.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
        self._marks: list[tuple[str, float | torch.cuda.Event]] = []
        self.mark("start")

    def mark(self, stage: str) -> None:
        """`stage` ends here."""
        if self._stream is None:
            self._marks.append((stage, time.perf_counter()))
        else:
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            self._marks.append((stage, self._stream.record_event(event)))

    def seconds(self) -> dict[str, float]:
        """Seconds by stage, in order."""
        laps = zip(self._marks, self._marks[1:], strict=False)
        return {stage: _between(begin, end) for (_, begin), (stage, end) in laps}


def _between(begin: "float | torch.cuda.Event", end: "float | torch.cuda.Event") -> float:
    if isinstance(begin, torch.cuda.Event) and isinstance(end, torch.cuda.Event):
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1000
    return float(end) - float(begin)  # type: ignore[arg-type]
