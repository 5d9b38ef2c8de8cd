"""A strict reader of CIFAR-10 (Krizhevsky, 2009), in each of the forms in which it lies about.

Its own are batches of 10,000 images: binary files of records, or Python's pickles. Besides, one
`.npz` file a part, with JPEG images end to end: `jpeg` (bytes,) and `offsets` (N + 1,) into it,
`labels` (N,). Nothing in a file is trusted; a pickle is read as data, no code of it runs.
"""

from __future__ import annotations

import io
import itertools
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import SpikestrapError
from ..files import check_unpacked, read_file
from .extras import require

SHAPE, CLASSES = (3, 32, 32), 10
_PIXELS = 3 * 32 * 32
_MAX_IMAGES = 50_000  # of a part
_MAX_BYTES = 2 * _MAX_IMAGES * _PIXELS  # of a file
_TRAINING_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))


class Part(NamedTuple):
    """Images uint8 (N, 3, 32, 32), red, green, blue, and labels int64 (N,) from 0 to 9."""

    images: np.ndarray
    labels: np.ndarray


def read_part(folder: Path, part: str) -> Part:
    """The ``"train"`` or ``"test"`` part, in the first of the three forms that is there.

    Args:
        folder: where the files lie, or below it as they unpack (``cifar-10-batches-bin``,
            ``cifar-10-batches-py``).
        part: which.

    Raises:
        SpikestrapError: a file is missing, or is not what it should be.
    """
    batches = _TRAINING_BATCHES if part == "train" else ("test_batch",)
    forms: tuple[tuple[str, Sequence[str], Callable[[Path], Part]], ...] = (
        ("cifar-10-batches-bin", [f"{name}.bin" for name in batches], read_binary),
        ("cifar-10-batches-py", batches, read_pickle),
        (".", [f"{part}.npz"], read_jpeg),
    )
    for below, names, read in forms:
        for place in (folder, folder / below):
            # One file of a form decides for it: what is missing beside it is then an error.
            if (place / names[0]).is_file():
                parts = [read(place / name) for name in names]
                return Part(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
    wanted = ", ".join(names[0] for _, names, _ in forms)
    raise SpikestrapError(f"{folder}: expected CIFAR-10, found none of {wanted}")


def read_binary(path: Path) -> Part:
    """A batch of CIFAR-10's binary version: records of a label and 3072 pixels, a byte each."""
    content = np.frombuffer(read_file(path, _MAX_BYTES), np.uint8)
    if content.size == 0 or content.size % (1 + _PIXELS):
        raise SpikestrapError(
            f"{path}: expected records of {1 + _PIXELS} bytes, got {content.size} bytes"
        )
    records = content.reshape(-1, 1 + _PIXELS)
    return _part(path, records[:, 1:], records[:, 0])


def read_pickle(path: Path) -> Part:
    """A batch of CIFAR-10's Python version: a pickled dict of ``data`` and ``labels``."""
    content = read_file(path, _MAX_BYTES)
    try:
        batch = _Unpickler(io.BytesIO(content), encoding="bytes").load()
        fields = {_text(name): value for name, value in batch.items()}
        data = fields["data"].array()
        labels = np.array(fields["labels"], dtype=np.int64)
    except Exception as error:  # a damaged pickle raises all sorts
        raise SpikestrapError(
            f"{path}: expected a pickled batch of CIFAR-10, a dict of data and labels, "
            f"got: {type(error).__name__}: {error}"
        ) from error
    return _part(path, data, labels)


def read_jpeg(path: Path) -> Part:
    """A part as JPEG images end to end in an ``.npz`` file; needs Pillow."""
    image = require("PIL.Image", "CIFAR-10 as JPEG images")
    arrays = _read_npz(path, {"jpeg": np.uint8, "offsets": np.int64, "labels": np.uint8})
    jpeg, offsets = arrays["jpeg"], arrays["offsets"]
    whole = offsets.size > 1 and offsets[0] == 0 and offsets[-1] == jpeg.size
    if not whole or (np.diff(offsets) <= 0).any() or offsets.size > _MAX_IMAGES + 1:
        raise SpikestrapError(
            f"{path}: offsets: expected rising numbers from 0 to {jpeg.size}, the size of jpeg, "
            f"at most {_MAX_IMAGES + 1} of them"
        )
    images = np.empty((offsets.size - 1, *SHAPE), np.uint8)
    for number, (start, end) in enumerate(itertools.pairwise(offsets)):
        try:
            with image.open(io.BytesIO(jpeg[start:end].tobytes()), formats=["JPEG"]) as decoded:
                if decoded.size != SHAPE[1:]:  # before any pixel is decoded
                    raise ValueError(f"{decoded.size[0]} x {decoded.size[1]} pixels")
                images[number] = np.asarray(decoded.convert("RGB")).transpose(2, 0, 1)
        except (OSError, ValueError, SyntaxError) as error:
            raise SpikestrapError(
                f"{path}: image {number}: expected a JPEG of 32 x 32 pixels, got: {error}"
            ) from error
    return _part(path, images, arrays["labels"])


def _part(path: Path, images: np.ndarray, labels: np.ndarray) -> Part:
    count = len(images)
    if not 1 <= count <= _MAX_IMAGES or images.size != count * _PIXELS:
        raise SpikestrapError(
            f"{path}: expected 1 to {_MAX_IMAGES} images of {_PIXELS} pixels, got {images.shape}"
        )
    if labels.shape != (count,):
        raise SpikestrapError(
            f"{path}: expected a label for each of the {count} images, got {labels.shape}"
        )
    labels = labels.astype(np.int64)
    if labels.min() < 0 or labels.max() >= CLASSES:
        raise SpikestrapError(
            f"{path}: expected labels from 0 to {CLASSES - 1}, got {labels.min()} to {labels.max()}"
        )
    return Part(images.reshape(count, *SHAPE), labels)


def _read_npz(path: Path, dtypes: dict[str, type]) -> dict[str, np.ndarray]:
    """Flat arrays by name; sizes are checked before they are believed."""
    try:
        check_unpacked(path, _MAX_BYTES)
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in dtypes}
    except SpikestrapError:
        raise
    except OSError as error:
        raise SpikestrapError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # a damaged archive makes zipfile, zlib and numpy raise all sorts
        raise SpikestrapError(
            f"{path}: expected arrays {', '.join(dtypes)} as numpy saves them, got: {error}"
        ) from error
    for name, dtype in dtypes.items():
        if arrays[name].ndim != 1 or arrays[name].dtype != dtype:
            raise SpikestrapError(
                f"{path}: {name}: expected {np.dtype(dtype)} (N,), "
                f"got {arrays[name].dtype} {arrays[name].shape}"
            )
    return arrays


class _Unpickler(pickle.Unpickler):
    """Reads numpy's arrays as what describes them, and refuses every other class."""

    def find_class(self, module: str, name: str) -> Any:
        if name == "_reconstruct" and module in (
            "numpy.core.multiarray",
            "numpy._core.multiarray",
        ):
            return _Described
        if module == "numpy" and name in ("ndarray", "dtype"):
            return _Described
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes in old pickles
            return _encode
        raise pickle.UnpicklingError(f"{module}.{name} has no place in it")


class _Described:
    """Stands for an array or a dtype, with the arguments and the state that it was pickled with."""

    def __init__(self, *args: Any) -> None:
        self.args: tuple[Any, ...] = args
        self.state: Any = ()

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def array(self) -> np.ndarray:
        """The array uint8 (N, 3072) that it describes."""
        _, shape, dtype, fortran, content = self.state
        if dtype.args[0] not in ("u1", b"u1") or len(shape) != 2 or fortran:
            raise ValueError(f"data: expected uint8 (N, {_PIXELS}), got {shape}")
        return np.frombuffer(content, np.uint8).reshape(shape)


def _encode(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError(f"expected latin1, got {encoding!r}")
    return text.encode("latin1")


def _text(name: Any) -> str:
    return name.decode("latin1") if isinstance(name, bytes) else str(name)
