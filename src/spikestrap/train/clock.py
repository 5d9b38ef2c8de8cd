"""A clock with one dial a name."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch


class Clock:
    """Adds up the seconds spent under each name; waits for a GPU to finish before it reads.

    device: the GPU to wait for, if it is one. seconds: what the dials begin with.

    >>> clock = Clock()
    >>> with clock("work"):
    ...     pass
    >>> list(clock.seconds), clock.seconds["work"] < 1
    (['work'], True)
    >>> list(clock.since({})), clock.since(clock.seconds)
    (['work'], {})
    """

    def __init__(
        self, device: torch.device | None = None, seconds: Mapping[str, float] | None = None
    ) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float, seconds or {})
        self._cuda = device if device is not None and device.type == "cuda" else None
        self._started = 0.0

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time what runs within the ``with`` block."""
        self.start()
        try:
            yield
        finally:
            self.stop(name)

    def start(self) -> None:
        """Time what runs from here to `stop`."""
        self._started = self._now()

    def stop(self, name: str) -> None:
        """Add the time since `start` to a dial."""
        self.seconds[name] += self._now() - self._started

    def since(self, before: Mapping[str, float]) -> dict[str, float]:
        """What has been added to earlier `seconds`; only names to which anything was."""
        added = {name: total - before.get(name, 0.0) for name, total in self.seconds.items()}
        return {name: seconds for name, seconds in added.items() if seconds > 0}

    def _now(self) -> float:
        if self._cuda is not None:
            torch.cuda.synchronize(self._cuda)
        return time.perf_counter()
