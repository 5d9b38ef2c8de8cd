"""N-MNIST (Orchard et al., Frontiers in Neuroscience, 2015): digits as an event camera saw them.

Tonic reads the recordings and bins their events; what is around it here makes sure that the files
are what they should be. A recording has some 4,000 events of 5 bytes: x, y, a bit of polarity and
23 bits of microseconds.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import SpikestrapError, at
from .extras import require

SHAPE, CLASSES = (2, 34, 34), 10
_SENSOR = SHAPE[::-1]  # tonic's order: width, height, polarities
_RECORD = 5  # bytes an event
_MAX_EVENTS = 2**15 - 1  # of a recording, some 8 times what they have; tonic counts in 16 bits
_MAX_RECORDINGS = 60_000  # of a part
_MAX_BYTES = 16 * 2**30  # of the frames of a part
_FOLDERS = {"train": "Train", "test": "Test"}


class Part(NamedTuple):
    """Frames uint8 (N, T, 2, 34, 34), events a bin, polarity and pixel; labels int64 (N,)."""

    frames: np.ndarray
    labels: np.ndarray


def read_part(folder: Path, part: str, time_steps: int) -> Part:
    """The ``"train"`` or ``"test"`` part, each recording binned into T frames.

    Binned as tonic's ``ToFrame(n_time_bins=T)`` does it: T windows of equal length from the first
    event on, in whole microseconds, so that the last event, and what a division by T leaves, is
    in none; where that would leave them empty, in recordings of less than T microseconds, windows
    of one microsecond, which hold all events. A byte a count, 2,312 T a recording: 1.1 GB for the
    training part at T = 8, about what the events themselves would take, and less to do at each
    step. No count in a bin of milliseconds comes near 255, where it would stop.

    Args:
        folder: where ``NMNIST/Train`` and ``NMNIST/Test`` lie, with a folder a digit.
        part: which.
        time_steps: T.

    Raises:
        SpikestrapError: tonic is not installed, a folder is missing, or a file is not what it
            should be.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     seven = Path(folder, "NMNIST", "Train", "7")
    ...     seven.mkdir(parents=True)       # below: x = 3, y = 5, polarity 1, then 0 and 9 later
    ...     _ = (seven / "00001.bin").write_bytes(bytes([3, 5, 128, 0, 0, 3, 5, 0, 0, 9]))
    ...     frames, labels = read_part(Path(folder), "train", time_steps=1)
    >>> frames.shape, frames[0, 0, :, 5, 3].tolist(), labels.tolist()
    ((1, 1, 2, 34, 34), [0, 1], [7])
    """
    root = folder / "NMNIST" / _FOLDERS[part]
    if not root.is_dir():
        raise SpikestrapError(
            f"{folder}: expected N-MNIST, found no NMNIST/{root.name}: unpack train.zip and "
            f"test.zip into {root.parent}"
        )
    recordings = _recordings(folder, root, part)
    count = len(recordings)
    if not 1 <= count <= _MAX_RECORDINGS:
        raise SpikestrapError(f"{root}: expected 1 to {_MAX_RECORDINGS} recordings, got {count}")
    shape = (count, time_steps, *SHAPE)
    if (size := np.prod(shape, dtype=np.int64)) > _MAX_BYTES:
        raise SpikestrapError(
            f"{root}: {count} recordings in {time_steps} frames are {size / 2**30:.0f} GiB, more "
            f"than {_MAX_BYTES // 2**30}: take fewer time steps"
        )
    to_frame = _tonic("transforms").ToFrame(sensor_size=_SENSOR, n_time_bins=time_steps)
    frames = np.empty(shape, np.uint8)
    for number, path in enumerate(map(Path, recordings.data)):
        with at(path):
            label = recordings.targets[number]
            if path.parent != root / str(label):
                raise SpikestrapError(f"expected it in a folder 0 to 9 of {root}")
            try:
                _check_size(path)
                events, _ = recordings[number]
            except OSError as error:
                raise SpikestrapError(f"cannot be read: {error.strerror or error}") from error
            events = _checked(events)
            short = events["t"][-1] - events["t"][0] < time_steps
            counts = _by_microsecond(events, time_steps) if short else to_frame(events)
            frames[number] = np.minimum(counts, 255)
    return Part(frames, np.array(recordings.targets, np.int64))


def _tonic(module: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of packages that tonic looks for
        return require(f"tonic.{module}", "N-MNIST", extra="events")


def _recordings(folder: Path, root: Path, part: str) -> Any:
    """Tonic's data set of the recordings that are there: how many does not matter, see below."""

    class NMNIST(_tonic("datasets").NMNIST):  # type: ignore[misc]  # tonic's folder is its name
        def download(self) -> None:
            """Nothing: tonic asks for it where the archive is gone or fewer than 10,000 lie."""

    try:
        return NMNIST(str(folder), train=part == "train")
    except ValueError as error:  # a recording in a folder whose name does not end in a digit
        raise SpikestrapError(f"{root}: expected a folder for each digit, 0 to 9") from error


def _check_size(path: Path) -> None:
    size = path.stat().st_size
    if size == 0 or size % _RECORD or size > _MAX_EVENTS * _RECORD:
        raise SpikestrapError(
            f"expected 1 to {_MAX_EVENTS} events of {_RECORD} bytes each, got {size} bytes"
        )


def _checked(events: np.ndarray) -> np.ndarray:
    """The events (n,) in order of time, which tonic takes for granted."""
    if not len(events):
        raise SpikestrapError("expected events, got none but marks of time")
    x, y = int(events["x"].max()), int(events["y"].max())
    if x >= _SENSOR[0] or y >= _SENSOR[1]:
        raise SpikestrapError(
            f"expected events on {_SENSOR[0]} x {_SENSOR[1]} pixels, got them up to ({x}, {y})"
        )
    return events[np.argsort(events["t"], kind="stable")]


def _by_microsecond(events: np.ndarray, time_steps: int) -> np.ndarray:
    """Frames of a microsecond each, for events too close for tonic: its windows would be empty."""
    counts = np.zeros((time_steps, *SHAPE), np.int64)
    np.add.at(counts, (events["t"] - events["t"][0], events["p"], events["y"], events["x"]), 1)
    return counts
