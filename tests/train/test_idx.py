import gzip
import struct
import tracemalloc

import numpy as np
import pytest

from spikestrap.errors import SpikestrapError
from spikestrap.train.idx import read_idx

IMAGES = np.arange(2 * 3 * 4).reshape(2, 3, 4)


def idx_bytes(array):
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


GOOD = idx_bytes(IMAGES)


@pytest.fixture
def read(tmp_path):
    def read(content, item_shape=(3, 4), max_items=5):
        path = tmp_path / "images"
        path.write_bytes(content)
        return read_idx(path, item_shape, max_items)

    return read


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_reads_plain_and_gzipped_whatever_the_name(read, pack):
    got = read(pack(GOOD))
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, IMAGES)


def test_reads_labels(read):
    np.testing.assert_array_equal(read(idx_bytes(np.array([3, 1])), ()), [3, 1])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "got an empty file"),
        (b"\x89PNG\r\n\x1a\n0000", "expected an IDX file.*got 89504e47"),
        (idx_bytes(np.zeros(7)), "expected an IDX file of 3-dimensional"),
        (b"\0\0\x0d\x03" + GOOD[4:], "unsigned bytes.*got 00000d03"),
        (GOOD[:10], "truncated: expected a header of 16 bytes, got 10"),
        (GOOD[:-1], "expected 24 bytes of items .2 as the header says., got only 23"),
        (GOOD + b"\0", "expected 24 bytes of items.*got more"),
        (idx_bytes(IMAGES.transpose(0, 2, 1)), r"expected items of shape \(3, 4\), got \(4, 3\)"),
        (idx_bytes(np.zeros((0, 3, 4))), "expected 1 to 5 items, the header says 0"),
        (idx_bytes(np.zeros((6, 3, 4))), "expected 1 to 5 items, the header says 6"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "expected items of shape"),
        (b"\0\0\x08\x03" + b"\xff" * 4 + GOOD[8:], "the header says 4294967295"),
        (gzip.compress(GOOD, mtime=0)[:-9], "expected a whole gzip file"),
        (gzip.compress(GOOD, mtime=0)[:12], "expected a whole gzip file"),
        (gzip.compress(GOOD, mtime=0)[:-8] + bytes(8), "expected a whole gzip file.*CRC"),
        (b"\x1f\x8b" + b"\xff" * 30, "expected a whole gzip file"),
    ],
)
def test_says_in_one_line_what_is_wrong(read, tmp_path, content, message):
    with pytest.raises(SpikestrapError, match=message) as caught:
        read(content)
    assert str(tmp_path / "images") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_opened(tmp_path):
    with pytest.raises(SpikestrapError, match="cannot be read: No such file"):
        read_idx(tmp_path / "missing", (), 5)


def test_a_gzip_bomb_is_not_unpacked(read):
    bomb = gzip.compress(GOOD[:4] + struct.pack(">3I", 2, 3, 4) + bytes(50_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(SpikestrapError, match="got more"):
            read(bomb)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()
