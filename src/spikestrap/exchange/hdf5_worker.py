"""Reads an HDF5 file from outside into dicts, numbers, texts and arrays, within bounds.

Everything is checked before it is read: that what is declared fits the bound and what the file
stores, that the type is a number or a text, that nothing links elsewhere. Compressed data is
unpacked here, into a buffer of the size declared, so that a file cannot unpack to more.

`hdf5.read_tree` runs this file as a process of its own, because the HDF5 library can hang or
crash on a damaged file; so it imports nothing of the package.
"""

from __future__ import annotations

import json
import math
import sys
import zlib
from contextlib import suppress
from typing import Any, BinaryIO

import h5py
import numpy as np

Tree = dict[str, Any]

_DEPTH, _OBJECTS, _TEXT = 8, 100_000, 1_000_000
# The most that deflate can pack into a byte.
_DEFLATE = 1032
# What HDF5 stores of a text of any length beside the text.
_REFERENCE = 16


class Refused(Exception):
    """The file is damaged, too large, or not what it should be; the message says which."""


def parse(path: str, max_bytes: int) -> Tree:
    """The file's groups as dicts, its data sets as arrays, numbers and texts.

    max_bytes bounds the sum of what they declare. Raises `Refused`.
    """
    try:
        with h5py.File(path, "r") as file:
            return _Reader(max_bytes).group(file, 0, "")
    except Refused:
        raise
    # h5py hands on whatever HDF5 and numpy think of a damaged file, under many names.
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise Refused(f"not a readable HDF5 file: {reason}") from None


class _Reader:
    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = self.left = max_bytes
        self.objects = 0

    def group(self, group: h5py.Group, depth: int, where: str) -> Tree:
        if depth > _DEPTH:
            raise Refused(f"groups deeper than {_DEPTH} at {where!r}")
        tree: Tree = {}
        for name in group:
            self.objects += 1
            if self.objects > _OBJECTS:
                raise Refused(f"more than {_OBJECTS} objects")
            at = f"{where}/{name}"
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise Refused(f"{at} is a link elsewhere, which is not followed")
            item = group[name]
            if isinstance(item, h5py.Group):
                tree[name] = self.group(item, depth + 1, at)
            elif isinstance(item, h5py.Dataset):
                tree[name] = self.data(item, at)
            else:
                raise Refused(f"{at} is neither a group nor a data set")
        return tree

    def data(self, data: h5py.Dataset, where: str) -> Any:
        if data.shape is None:
            raise Refused(f"{where} is empty")
        kind = h5py.check_string_dtype(data.dtype)
        item = _REFERENCE if kind and kind.length is None else data.dtype.itemsize
        declared = math.prod(data.shape) * item
        self.left -= declared
        if self.left < 0 or data.ndim > 8:
            raise Refused(
                f"{where} declares {declared} bytes, shape {data.shape}; at most "
                f"{self.max_bytes} bytes are read of a file"
            )
        plist = data.id.get_create_plist()
        if data.is_virtual or (data.chunks is None and plist.get_external_count()):
            raise Refused(f"{where} lies outside the file")
        filters = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
        stored = data.id.get_storage_size()
        if declared > stored * (_DEFLATE if filters else 1):
            raise Refused(
                f"{where} declares {declared} bytes, shape {data.shape}, and holds {stored}"
            )
        if kind is not None:
            return self.text(data, where)
        if data.dtype.kind not in "fiub" or data.dtype.itemsize > 8:
            raise Refused(f"{where} has type {data.dtype}; expected numbers or text")
        if data.chunks is None:
            values = np.asarray(data[()])
        else:
            values = self.unpack(data, filters, declared, where)
        return values if values.ndim else values[()].item()

    def text(self, data: h5py.Dataset, where: str) -> Any:
        if data.chunks is not None or data.size > _OBJECTS:
            raise Refused(f"{where} holds {data.size} texts, in chunks: {data.chunks}")
        values = np.asarray(data[()])
        texts = [v.decode("utf8") if isinstance(v, bytes) else str(v) for v in values.flat]
        self.left -= sum(map(len, texts))
        if self.left < 0 or any(len(t) > _TEXT for t in texts):
            raise Refused(f"{where} holds more text than is read")
        return np.array(texts, dtype=object).reshape(values.shape) if values.ndim else texts[0]

    def unpack(
        self, data: h5py.Dataset, filters: list[int], declared: int, where: str
    ) -> np.ndarray[Any, Any]:
        """The data set from its chunks, each unpacked into no more than it declares."""
        known = [h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE]
        if filters not in ([], known[:1], known[1:], known):
            raise Refused(f"{where} is packed by filters {filters}; expected gzip")
        size = math.prod(data.chunks) * data.dtype.itemsize
        if size > 4 * declared + 65536:
            raise Refused(f"{where} declares chunks of {size} bytes for {declared}")
        values = np.zeros(data.shape, data.dtype)
        chunks = data.id.get_num_chunks()
        expected = math.prod(-(-n // c) for n, c in zip(data.shape, data.chunks, strict=True))
        if chunks != expected:
            raise Refused(f"{where} holds {chunks} of its {expected} chunks")
        for number in range(chunks):
            info = data.id.get_chunk_info(number)
            if info.size > size + 65536:
                raise Refused(f"{where} stores a chunk of {size} bytes in {info.size}")
            mask, raw = data.id.read_direct_chunk(info.chunk_offset)
            if mask:
                raise Refused(f"{where} has a chunk without its filters")
            if h5py.h5z.FILTER_DEFLATE in filters:
                raw = zlib.decompressobj().decompress(raw, size + 1)
            if len(raw) != size:
                raise Refused(f"{where} has a chunk of {len(raw)} bytes, expected {size}")
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


def send(tree: Tree, out: BinaryIO) -> None:
    """Writes a tree: a line of JSON, in which an array is its type and shape, then the arrays."""
    arrays = []

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {"group": {name: plain(item) for name, item in value.items()}}
        if isinstance(value, np.ndarray) and value.dtype == object:
            return {"texts": value.flatten().tolist(), "shape": value.shape}
        if isinstance(value, np.ndarray):
            # In the byte order of this machine, whatever the file's.
            arrays.append(np.ascontiguousarray(value, value.dtype.newbyteorder("=")))
            return {"dtype": arrays[-1].dtype.str, "shape": value.shape}
        return {"value": value}

    out.write(json.dumps(plain(tree)).encode() + b"\n")
    for array in arrays:
        out.write(array.data.cast("B") if array.size else b"")


def receive(data: bytearray) -> Tree:
    """The tree that `send` wrote."""
    head, at = json.loads(bytes(data[: data.index(b"\n")])), data.index(b"\n") + 1

    def back(part: Any) -> Any:
        nonlocal at
        if "group" in part:
            return {name: back(item) for name, item in part["group"].items()}
        if "texts" in part:
            return np.array(part["texts"], dtype=object).reshape(part["shape"])
        if "dtype" in part:
            dtype, count = np.dtype(part["dtype"]), math.prod(part["shape"])
            array = np.frombuffer(data, dtype, count, at) if count else np.empty(0, dtype)
            at += array.nbytes
            return array.reshape(part["shape"])
        return part["value"]

    tree: Tree = back(head)
    return tree


def main(path: str, max_bytes: int) -> int:
    """What the process does: 0 and the tree on standard output, or 3 and the reason."""
    try:
        import resource
    except ImportError:  # not on Windows
        pass
    else:
        # Room for the arrays, once more to send them, and the libraries.
        room = 4 * max_bytes + 2**32
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        if most != resource.RLIM_INFINITY:
            room = min(room, most)
        with suppress(ValueError, OSError):  # macOS knows the limit and takes none
            resource.setrlimit(resource.RLIMIT_AS, (room, room))
    try:
        tree = parse(path, max_bytes)
    except (Refused, MemoryError) as error:
        print(str(error) or "out of memory", file=sys.stderr)
        return 3
    send(tree, sys.stdout.buffer)
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
