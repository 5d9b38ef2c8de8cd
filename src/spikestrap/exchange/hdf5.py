"""Reads values out of an HDF5 file that may come from anywhere.

Every size is checked before it is believed, links lead nowhere else, and whatever the HDF5
library makes of a damaged file comes out as one SpikestrapError.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..errors import SpikestrapError

MAX_FILE = 2**31  # bytes
MAX_VALUES = 2**26  # of a data set: 256 MB of weights
_MAX_DEFLATE = 1032  # what a byte can unpack to at most
_SMALL = 4096  # bytes that are read without asking how they are stored


@contextmanager
def reading(path: Path) -> Iterator[h5py.File]:
    """The opened file; errors inside name it.

    Raises SpikestrapError: it cannot be read, is no HDF5 file or is too large.
    """
    try:
        size = path.stat().st_size
        if size > MAX_FILE:
            raise SpikestrapError(f"{path}: expected at most {MAX_FILE} bytes, got {size}")
        # Through Python's file: what the library would map or lock stays out of its hands.
        with open(path, "rb") as raw, h5py.File(raw, "r") as file:
            yield file
    except SpikestrapError as error:
        text = str(error)
        raise SpikestrapError(text if text.startswith(f"{path}:") else f"{path}: {text}") from None
    except OSError as error:
        reason = error.strerror or "not an HDF5 file, or a damaged one"
        raise SpikestrapError(f"{path}: cannot be read: {reason}") from error
    except Exception as error:  # damaged files make h5py raise all sorts
        raise SpikestrapError(f"{path}: a damaged HDF5 file ({type(error).__name__})") from error


def group(parent: h5py.Group, name: str) -> h5py.Group:
    """The group of that name in another one."""
    found = _get(parent, name)
    if not isinstance(found, h5py.Group):
        raise SpikestrapError(f"{_path(parent, name)}: expected a group")
    return found


def has(parent: h5py.Group, name: str) -> bool:
    """Whether there is something of that name."""
    return name in parent


def array(parent: h5py.Group, name: str) -> np.ndarray:
    """A data set of finite numbers, float64 or int64."""
    values = _read(parent, name)
    if values.dtype.kind not in "iufb":
        raise SpikestrapError(
            f"{_path(parent, name)}: expected numbers, got values of type {values.dtype}"
        )
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise SpikestrapError(f"{_path(parent, name)}: expected finite numbers, got NaN or inf")
    return values.astype(np.float64 if values.dtype.kind == "f" else np.int64)


def integer(parent: h5py.Group, name: str, default: int | None = None) -> int:
    """One whole number, cut toward zero; `default` where there is none."""
    if default is not None and not has(parent, name):
        return default
    values = array(parent, name)
    if values.size != 1 or not -(2**53) <= values.item() <= 2**53:
        raise SpikestrapError(f"{_path(parent, name)}: expected one number, got {values.shape}")
    return int(values.item())


def text(parent: h5py.Group, name: str) -> str:
    """A short text."""
    values = _read(parent, name)
    value: Any = values.reshape(-1)[0] if values.size == 1 else None
    value = value.encode() if isinstance(value, str) else value
    if not isinstance(value, bytes):
        raise SpikestrapError(f"{_path(parent, name)}: expected a text, got {values.dtype}")
    return value[:80].decode("ascii", "replace").rstrip("\0")


def _read(parent: h5py.Group, name: str) -> np.ndarray:
    found, where = _get(parent, name), _path(parent, name)
    if not isinstance(found, h5py.Dataset):
        raise SpikestrapError(f"{where}: expected a data set")
    if found.is_virtual or found.external:
        raise SpikestrapError(f"{where}: expected values in the file itself, not in another one")
    if found.shape is None or found.size > MAX_VALUES:
        raise SpikestrapError(f"{where}: expected at most {MAX_VALUES} values, got {found.shape}")
    declared = found.size * found.dtype.itemsize
    stored = found.id.get_storage_size()
    if declared > max(_SMALL, _MAX_DEFLATE * stored):
        raise SpikestrapError(f"{where}: declares {declared} bytes but holds {stored}")
    return np.asarray(found[()])


def _get(parent: h5py.Group, name: str) -> Any:
    if name not in parent:
        raise SpikestrapError(f"{_path(parent, name)}: expected, but not there")
    if not isinstance(parent.get(name, getlink=True), h5py.HardLink):
        raise SpikestrapError(f"{_path(parent, name)}: expected no link")
    return parent[name]


def _path(parent: h5py.Group, name: str) -> str:
    return f"{parent.name.rstrip('/')}/{name}"
