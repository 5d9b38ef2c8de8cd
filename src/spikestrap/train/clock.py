"""A clock with one dial a name."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Clock:
    """Adds up the seconds spent under each name; waits for a GPU to finish before it reads.

    >>> clock = Clock()
    >>> with clock("work"):
    ...     pass
    >>> list(clock.seconds), clock.seconds["work"] < 1
    (['work'], True)
    >>> list(clock.lap()), clock.lap()
    (['work'], {})
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._lap: dict[str, float] = {}
        self._cuda = device if device is not None and device.type == "cuda" else None

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time what runs within the ``with`` block."""
        start = self._now()
        try:
            yield
        finally:
            self.seconds[name] += self._now() - start

    def lap(self) -> dict[str, float]:
        """The seconds under each name since the last lap, or the start; only what has any."""
        last, self._lap = self._lap, dict(self.seconds)
        since = {name: total - last.get(name, 0.0) for name, total in self._lap.items()}
        return {name: seconds for name, seconds in since.items() if seconds > 0}

    def _now(self) -> float:
        if self._cuda is not None:
            torch.cuda.synchronize(self._cuda)
        return time.perf_counter()
