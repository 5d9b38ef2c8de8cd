import io
import os
import pickle
import struct

import numpy as np
import pytest
from PIL import Image

from spikestrap.errors import SpikestrapError
from spikestrap.train.cifar import read_binary, read_jpeg, read_part, read_pickle

PIXELS = 3 * 32 * 32


def images(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 3, 32, 32), dtype=np.uint8)


def labels(n, seed=0):
    return np.random.default_rng(seed).integers(0, 10, n)


def binary(n, seed=0):
    pixels = images(n, seed).reshape(n, -1)
    return np.concatenate([labels(n, seed)[:, None].astype(np.uint8), pixels], 1).tobytes()


def text(value):
    return b"U" + bytes([len(value)]) + value


def python2(n, seed=0, dtype=b"u1"):
    """A batch as Python 2's pickle wrote it, and as CIFAR-10 is published: opcode by opcode."""
    content = images(n, seed).tobytes()
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b")
    array += b"\x87R(K\x01J" + struct.pack("<i", n) + b"M" + struct.pack("<H", PIXELS) + b"\x86"
    array += b"cnumpy\ndtype\n" + text(dtype) + b"K\x00K\x01\x87R(K\x03" + text(b"|")
    array += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
    array += b"T" + struct.pack("<i", len(content)) + content + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels(n, seed)) + b"e"
    fields = text(b"batch_label") + text(b"testing batch 1 of 1") + text(b"labels") + numbers
    return b"\x80\x02}(" + fields + text(b"data") + array + b"u."


def python3(n, seed=0, protocol=2):
    batch = {b"data": images(n, seed).reshape(n, -1), b"labels": labels(n, seed).tolist()}
    return pickle.dumps(batch, protocol=protocol)


def write_npz(path, n, seed=0, size=(32, 32), **changes):
    files = []
    for image in images(n, seed):
        file = io.BytesIO()
        Image.fromarray(image.transpose(1, 2, 0)).resize(size).save(file, "JPEG")
        files.append(file.getvalue())
    arrays = {
        "jpeg": np.frombuffer(b"".join(files), np.uint8),
        "offsets": np.cumsum([0, *map(len, files)]),
        "labels": labels(n, seed).astype(np.uint8),
        "classes": np.array(["airplane", "truck"]),
        **changes,
    }
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return [np.asarray(Image.open(io.BytesIO(file))).transpose(2, 0, 1) for file in files]


@pytest.mark.parametrize("write", [binary, python2, python3])
def test_the_batches_hold_what_was_written(tmp_path, write):
    path = tmp_path / "batch"
    path.write_bytes(write(7))
    part = read_binary(path) if write is binary else read_pickle(path)
    assert part.images.dtype == np.uint8
    np.testing.assert_array_equal(part.images, images(7))
    np.testing.assert_array_equal(part.labels, labels(7))


def test_jpeg_images_are_those_that_pillow_decodes(tmp_path):
    expected = write_npz(tmp_path / "x.npz", 5)
    part = read_jpeg(tmp_path / "x.npz")
    np.testing.assert_array_equal(part.images, expected)
    np.testing.assert_array_equal(part.labels, labels(5))


@pytest.mark.parametrize("below", ["", "cifar-10-batches-bin", "cifar-10-batches-py"])
@pytest.mark.parametrize(("write", "ending"), [(binary, ".bin"), (python2, "")])
def test_parts_are_found_where_they_unpack(tmp_path, below, write, ending):
    if below.endswith("py") != (write is python2) and below:
        below = "cifar-10-batches-py" if write is python2 else "cifar-10-batches-bin"
    folder = tmp_path / below
    folder.mkdir(exist_ok=True)
    for number in range(1, 6):
        (folder / f"data_batch_{number}{ending}").write_bytes(write(number, seed=number))
    (folder / f"test_batch{ending}").write_bytes(write(3))
    train, test = read_part(tmp_path, "train"), read_part(tmp_path, "test")
    np.testing.assert_array_equal(
        train.images, np.concatenate([images(n, seed=n) for n in range(1, 6)])
    )
    np.testing.assert_array_equal(test.labels, labels(3))


def test_an_npz_a_part(tmp_path):
    write_npz(tmp_path / "train.npz", 4)
    write_npz(tmp_path / "test.npz", 2, seed=1)
    assert len(read_part(tmp_path, "train").images) == 4
    assert len(read_part(tmp_path, "test").images) == 2


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(SpikestrapError, match="found none of data_batch_1"):
        read_part(tmp_path, "train")
    (tmp_path / "data_batch_1.bin").write_bytes(binary(1))
    with pytest.raises(SpikestrapError, match=r"data_batch_2.bin: cannot be read: No such file"):
        read_part(tmp_path, "train")


@pytest.mark.parametrize("size", [0, 1, 3072, 3074])
def test_binary_records_that_are_not_whole(tmp_path, size):
    (tmp_path / "x").write_bytes(bytes(size))
    with pytest.raises(SpikestrapError, match=f"records of 3073 bytes, got {size} bytes"):
        read_binary(tmp_path / "x")


def test_a_label_beyond_the_classes(tmp_path):
    (tmp_path / "x").write_bytes(b"\x0a" + bytes(PIXELS))
    with pytest.raises(SpikestrapError, match="labels from 0 to 9, got 10 to 10"):
        read_binary(tmp_path / "x")


class Evil:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_runs_no_code(tmp_path, protocol):
    batch = {b"data": Evil(tmp_path / "ran"), b"labels": [1]}
    (tmp_path / "x").write_bytes(pickle.dumps(batch, protocol))
    with pytest.raises(SpikestrapError, match=r"mkdir has no place in it"):
        read_pickle(tmp_path / "x")
    assert not (tmp_path / "ran").exists()


def test_numpys_own_loader_is_not_called(tmp_path):
    """Of numpy's names only the three that stand for an array are known."""
    for name in ("numpy\nload\n", "numpy.core.multiarray\n_frombuffer\n", "numpy\nmemmap\n"):
        (tmp_path / "x").write_bytes(b"\x80\x02c" + name.encode() + b".")
        with pytest.raises(SpikestrapError, match="has no place in it"):
            read_pickle(tmp_path / "x")


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ([1], "got: AttributeError"),
        ({b"labels": [1]}, "KeyError: 'data'"),
        ({b"data": b"x", b"labels": [1]}, "AttributeError"),
        ({b"data": np.zeros((1, PIXELS), np.float32), b"labels": [1]}, "expected uint8"),
        ({b"data": np.zeros((1, 9), np.uint8), b"labels": [1]}, "images of 3072 pixels"),
        ({b"data": np.zeros((2, PIXELS), np.uint8), b"labels": [1]}, "each of the 2 images"),
        ({b"data": np.zeros((1, PIXELS), np.uint8), b"labels": ["x"]}, "ValueError"),
    ],
)
def test_a_pickle_of_something_else(tmp_path, batch, message):
    (tmp_path / "x").write_bytes(pickle.dumps(batch, 2))
    with pytest.raises(SpikestrapError, match=message):
        read_pickle(tmp_path / "x")


def test_a_damaged_pickle_is_read_or_refused(tmp_path):
    whole = python2(2)
    random = np.random.default_rng(0)
    path = tmp_path / "x"
    starts = [*range(0, 300, 7), len(whole) - 1]
    for cut in starts:
        path.write_bytes(whole[:cut])
        with pytest.raises(SpikestrapError, match=r"x: expected a pickled batch"):
            read_pickle(path)
    for _ in range(300):
        damaged = bytearray(whole)
        for place in random.integers(0, 250, 3):
            damaged[place] = random.integers(256)
        path.write_bytes(damaged)
        try:
            part = read_pickle(path)
        except SpikestrapError:
            continue
        assert part.images.shape == (2, 3, 32, 32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"jpeg": None}, "expected arrays jpeg, offsets, labels"),
        ({"offsets": np.array([0, 5, 3])}, "offsets: expected rising numbers"),
        ({"offsets": np.array([0])}, "offsets: expected rising numbers"),
        ({"offsets": np.array([[0, 1]])}, r"offsets: expected int64 \(N,\)"),
        ({"labels": np.array([1.0, 2.0])}, r"labels: expected uint8 \(N,\), got float64"),
        ({"labels": np.array([1], np.uint8)}, "a label for each of the 2 images"),
        ({"labels": np.array([object()])}, "expected arrays"),
        ({"jpeg": np.zeros(9, np.uint8), "offsets": np.array([0, 4, 9])}, "image 0: expected a"),
    ],
)
def test_an_npz_of_something_else(tmp_path, changes, message):
    write_npz(tmp_path / "x.npz", 2, **changes)
    with pytest.raises(SpikestrapError, match=message):
        read_jpeg(tmp_path / "x.npz")


def test_a_jpeg_of_another_size(tmp_path):
    write_npz(tmp_path / "x.npz", 1, size=(64, 32))
    with pytest.raises(SpikestrapError, match=r"image 0: expected a JPEG of 32 x 32 .* got: 64"):
        read_jpeg(tmp_path / "x.npz")


def test_another_kind_of_image(tmp_path):
    file = io.BytesIO()
    Image.new("RGB", (32, 32)).save(file, "PNG")
    content = np.frombuffer(file.getvalue(), np.uint8)
    write_npz(tmp_path / "x.npz", 1, jpeg=content, offsets=np.array([0, content.size]))
    with pytest.raises(SpikestrapError, match="image 0: expected a JPEG"):
        read_jpeg(tmp_path / "x.npz")


def test_no_npz(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"PK nothing")
    with pytest.raises(SpikestrapError, match=r"x.npz: expected arrays"):
        read_jpeg(tmp_path / "x.npz")
    with pytest.raises(SpikestrapError, match=r"y.npz: cannot be read: No such file"):
        read_jpeg(tmp_path / "y.npz")
