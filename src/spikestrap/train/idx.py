"""A strict reader of IDX files, the format in which MNIST is published.

An IDX file is a big-endian header (two zero bytes, the item type, the number of dimensions, then
one 32-bit size a dimension) and the items. Nothing in it is trusted: the header is compared with
what the caller expects before any item is read, and no more is read than the caller allows.
"""

import gzip
import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from ..errors import SpikestrapError

_UBYTE = 0x08
_GZIP_MAGIC = b"\x1f\x8b"


def read_idx(path: Path, item_shape: Sequence[int], max_items: int) -> np.ndarray:
    """Read unsigned bytes from an IDX file, gzipped or not.

    Args:
        path: the file; whether it is gzipped is read from its first bytes, not from its name.
        item_shape: the shape of one item: ``(28, 28)`` for images, ``()`` for labels.
        max_items: the largest number of items to accept; bounds the memory.

    Returns:
        uint8 array (items, *item_shape), at least one item.

    Raises:
        SpikestrapError: the file cannot be read, or is not exactly such a file.
    """
    try:
        with open(path, "rb") as raw:
            zipped = raw.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
            raw.seek(0)
            if not zipped:
                return _read(raw, path, tuple(item_shape), max_items)
            with gzip.GzipFile(fileobj=raw) as stream:
                return _read(cast(BinaryIO, stream), path, tuple(item_shape), max_items)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise SpikestrapError(f"{path}: expected a whole gzip file, got: {error}") from error
    except OSError as error:
        raise SpikestrapError(f"{path}: cannot be read: {error.strerror or error}") from error


def _read(stream: BinaryIO, path: Path, item_shape: tuple[int, ...], max_items: int) -> np.ndarray:
    dims = 1 + len(item_shape)
    expected_magic = bytes((0, 0, _UBYTE, dims))
    header = stream.read(4 + 4 * dims)
    if header[:4] != expected_magic:
        raise SpikestrapError(
            f"{path}: expected an IDX file of {dims}-dimensional unsigned bytes "
            f"(first bytes {expected_magic.hex()}), got {header[:4].hex() or 'an empty file'}"
        )
    if len(header) < 4 + 4 * dims:
        raise SpikestrapError(
            f"{path}: truncated: expected a header of {4 + 4 * dims} bytes, got {len(header)}"
        )
    count, *shape = struct.unpack(f">{dims}I", header[4:])
    if tuple(shape) != item_shape:
        raise SpikestrapError(f"{path}: expected items of shape {item_shape}, got {tuple(shape)}")
    if not 1 <= count <= max_items:
        raise SpikestrapError(f"{path}: expected 1 to {max_items} items, the header says {count}")
    size = count * math.prod(item_shape)
    items = bytearray(stream.read(size + 1))  # a byte too many tells a file that is too long
    if len(items) != size:
        got = f"only {len(items)}" if len(items) < size else "more"
        raise SpikestrapError(
            f"{path}: expected {size} bytes of items ({count} as the header says), got {got}"
        )
    return np.frombuffer(items, dtype=np.uint8).reshape(count, *item_shape)
