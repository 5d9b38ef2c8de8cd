"""Reads an HDF5 file from outside into plain dicts, numbers, texts and arrays, within bounds.

Everything is checked before it is read: that a group is not its own child, that what is
declared fits the bound and the file, that the type is a number or a text. Compressed data is
unpacked here, into a buffer of the size declared, so that a file cannot unpack to more.
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ...errors import SpikestrapError

Tree = dict[str, Any]

_DEPTH, _OBJECTS, _TEXT = 8, 100_000, 1_000_000
# The most that deflate can pack into a byte.
_DEFLATE = 1032


def read_tree(path: Path, max_bytes: int) -> Tree:
    """The file's groups as dicts, its data sets as arrays, numbers and texts.

    max_bytes bounds the sum of all arrays. Raises SpikestrapError for what is not HDF5, is
    damaged, links elsewhere, or is larger than that.
    """
    try:
        size = path.stat().st_size
        with h5py.File(path, "r") as file:
            return _Reader(size, max_bytes).group(file, 0, "")
    except SpikestrapError:
        raise
    # h5py hands on whatever HDF5 and numpy think of a damaged file, under many names.
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise SpikestrapError(f"not a readable HDF5 file: {reason}") from None


class _Reader:
    def __init__(self, file_bytes: int, max_bytes: int) -> None:
        self.file_bytes, self.max_bytes = file_bytes, max_bytes
        self.left, self.objects = max_bytes, 0

    def group(self, group: h5py.Group, depth: int, where: str) -> Tree:
        if depth > _DEPTH:
            raise SpikestrapError(f"groups deeper than {_DEPTH} at {where!r}")
        tree: Tree = {}
        for name in group:
            self.objects += 1
            if self.objects > _OBJECTS:
                raise SpikestrapError(f"more than {_OBJECTS} objects")
            at = f"{where}/{name}"
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise SpikestrapError(f"{at} is a link elsewhere, which is not followed")
            item = group[name]
            if isinstance(item, h5py.Group):
                tree[name] = self.group(item, depth + 1, at)
            elif isinstance(item, h5py.Dataset):
                tree[name] = self.data(item, at)
            else:
                raise SpikestrapError(f"{at} is neither a group nor a data set")
        return tree

    def data(self, data: h5py.Dataset, where: str) -> Any:
        if data.shape is None:
            raise SpikestrapError(f"{where} is empty")
        count = math.prod(data.shape)
        text = h5py.check_string_dtype(data.dtype)
        declared = count * max(data.dtype.itemsize, 1)
        self.left -= declared
        if self.left < 0 or data.ndim > 8:
            raise SpikestrapError(
                f"{where} declares {declared} bytes, shape {data.shape}; at most "
                f"{self.max_bytes} bytes are read of a file"
            )
        if text is not None:
            return self.text(data, where)
        if data.dtype.kind not in "fiub" or data.dtype.itemsize > 8:
            raise SpikestrapError(f"{where} has type {data.dtype}; expected numbers or text")
        values = self.numbers(data, declared, where)
        return values if values.ndim else values[()].item()

    def text(self, data: h5py.Dataset, where: str) -> Any:
        """Texts lie in the file once each: what is declared cannot exceed it by much."""
        if data.chunks is not None or data.size * 16 > self.file_bytes or data.size > _OBJECTS:
            if data.dtype.kind != "O" or data.size * 16 > self.file_bytes or data.size > _OBJECTS:
                raise SpikestrapError(f"{where} declares {data.size} texts, more than it can hold")
            self.check_chunks(data, where)
        values = np.asarray(data[()])
        texts = [v.decode("utf8") if isinstance(v, bytes) else str(v) for v in values.flat]
        self.left -= sum(map(len, texts))
        if self.left < 0 or any(len(t) > _TEXT for t in texts):
            raise SpikestrapError(f"{where} holds more text than is read")
        if not values.ndim:
            return texts[0]
        return np.array(texts, dtype=object).reshape(values.shape)

    def check_chunks(self, data: h5py.Dataset, where: str) -> int:
        """Bytes of one chunk, which is what HDF5 takes to read any of it."""
        size = math.prod(data.chunks) * data.dtype.itemsize
        if size > self.max_bytes:
            raise SpikestrapError(f"{where} declares chunks of {size} bytes")
        return size

    def numbers(self, data: h5py.Dataset, declared: int, where: str) -> np.ndarray[Any, Any]:
        plist = data.id.get_create_plist()
        if plist.get_external_count() or data.is_virtual:
            raise SpikestrapError(f"{where} lies outside the file")
        filters = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
        stored = data.id.get_storage_size()
        if declared > stored * (_DEFLATE if filters else 1):
            raise SpikestrapError(
                f"{where} declares {declared} bytes, shape {data.shape}, and holds {stored}"
            )
        if data.chunks is None:
            return np.asarray(data[()])
        known = [h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE]
        if filters not in ([], known[:1], known[1:], known):
            raise SpikestrapError(f"{where} is packed by filters {filters}; expected gzip")
        size = self.check_chunks(data, where)
        if size > declared * 4 + 65536:
            raise SpikestrapError(f"{where} declares chunks of {size} bytes for {declared}")
        return self.unpack(data, filters, size, where)

    def unpack(
        self, data: h5py.Dataset, filters: list[int], size: int, where: str
    ) -> np.ndarray[Any, Any]:
        """The data set from its chunks, each unpacked into no more than it declares."""
        values = np.zeros(data.shape, data.dtype)
        chunks = data.id.get_num_chunks()
        expected = math.prod(-(-n // c) for n, c in zip(data.shape, data.chunks, strict=True))
        if chunks != expected:
            raise SpikestrapError(f"{where} holds {chunks} of its {expected} chunks")
        for number in range(chunks):
            info = data.id.get_chunk_info(number)
            if info.size > self.file_bytes:
                raise SpikestrapError(f"{where} declares a chunk of {info.size} bytes")
            mask, raw = data.id.read_direct_chunk(info.chunk_offset)
            if mask:
                raise SpikestrapError(f"{where} has a chunk without its filters")
            if h5py.h5z.FILTER_DEFLATE in filters:
                raw = zlib.decompressobj().decompress(raw, size + 1)
            if len(raw) != size:
                raise SpikestrapError(f"{where} has a chunk of {len(raw)} bytes, expected {size}")
            if h5py.h5z.FILTER_SHUFFLE in filters:
                planes = np.frombuffer(raw, np.uint8).reshape(data.dtype.itemsize, -1)
                raw = planes.T.tobytes()
            chunk = np.frombuffer(raw, data.dtype).reshape(data.chunks)
            # The last chunk of an axis reaches beyond the data.
            place = tuple(
                slice(o, min(o + c, n))
                for o, c, n in zip(info.chunk_offset, data.chunks, data.shape, strict=True)
            )
            values[place] = chunk[tuple(slice(0, p.stop - p.start) for p in place)]
        return values
