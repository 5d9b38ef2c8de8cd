import gzip
import struct
from pathlib import Path

import numpy as np
import pooch
import pytest
import torch
from tests.nmnist import write, write_data
from tests.train.test_cifar import write_npz

from spikestrap.errors import SpikestrapError, SpikestrapWarning
from spikestrap.train import cifar
from spikestrap.train.data import SHAPES, cifar10, digits, load, mnist, nmnist, to_input


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    content = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def write_mnist(folder: Path, name="{part}-{kind}-idx{dims}-ubyte.gz", train=24, test=10) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for part, count in (("train", train), ("t10k", test)):
        images = random.integers(0, 256, (count, 28, 28))
        write_idx(folder / name.format(part=part, kind="images", dims=3), images)
        write_idx(folder / name.format(part=part, kind="labels", dims=1), np.arange(count) % 10)
    return folder


class TestDigits:
    def test_shapes_and_range(self):
        splits = digits(0)
        assert (splits.name, splits.classes) == ("digits", 10)
        for part in (splits.train, splits.validation, splits.test):
            assert part.x.shape == (len(part), 1, 8, 8)
            assert part.x.dtype == torch.float32
            assert part.y.dtype == torch.int64
            assert part.x.min() == 0
            assert part.x.max() == 1

    def test_the_parts_share_no_image_and_leave_none_out(self):
        splits = digits(3)
        everything = torch.cat([splits.train.x, splits.validation.x, splits.test.x])
        assert len(everything) == 1797
        assert len(everything.flatten(1).unique(dim=0)) == 1797

    def test_only_the_validation_part_depends_on_the_seed(self):
        a, b = digits(0), digits(1)
        assert a.test.x.equal(b.test.x)
        assert a.test.y.equal(b.test.y)
        assert not a.validation.x.equal(b.validation.x)
        assert digits(1).validation.x.equal(b.validation.x)

    def test_the_classes_have_equal_shares(self):
        splits = digits(0)
        for part in (splits.validation, splits.test):
            shares = part.y.bincount(minlength=10) / len(part)
            assert (shares - 0.1).abs().max() < 0.02


class TestMnist:
    @pytest.mark.parametrize("kind", ["", ".gz"])
    @pytest.mark.parametrize("dot", ["-", "."])
    @pytest.mark.parametrize("below", ["", "MNIST/raw"])
    def test_finds_the_usual_names(self, tmp_path, kind, dot, below):
        write_mnist(tmp_path / below, "{part}-{kind}" + dot + "idx{dims}-ubyte" + kind)
        splits = mnist(tmp_path)
        sizes = [len(part) for part in (splits.train, splits.validation, splits.test)]
        assert sizes == [22, 2, 10]
        assert splits.train.x.shape == (22, 1, 28, 28)
        assert splits.train.x.dtype == torch.float32
        assert 0 <= splits.train.x.min() <= splits.train.x.max() <= 1

    def test_the_last_training_images_are_for_validation(self, tmp_path):
        splits = mnist(write_mnist(tmp_path))
        labels = torch.cat([splits.train.y, splits.validation.y])
        assert labels.tolist() == [i % 10 for i in range(24)]
        assert splits.validation.y.tolist() == [2, 3]

    def test_the_real_one_where_it_lies(self, shared_mnist):
        splits = mnist(shared_mnist)
        sizes = [len(part) for part in (splits.train, splits.validation, splits.test)]
        assert sizes == [55_000, 5_000, 10_000]
        assert splits.test.y[:5].tolist() == [7, 2, 1, 0, 4]
        assert splits.train.y[:5].tolist() == [5, 0, 4, 1, 9]

    def test_a_missing_file_is_named(self, tmp_path):
        write_mnist(tmp_path)
        (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
        with pytest.raises(SpikestrapError, match="found no t10k-labels-idx1-ubyte, with or"):
            mnist(tmp_path)

    def test_a_label_for_each_image(self, tmp_path):
        write_mnist(tmp_path)
        write_idx(tmp_path / "train-labels-idx1-ubyte.gz", np.zeros(23))
        with pytest.raises(SpikestrapError, match="a label for each of the 24 images, got 23"):
            mnist(tmp_path)

    def test_a_label_beyond_the_classes(self, tmp_path):
        write_mnist(tmp_path)
        write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", np.full(10, 10))
        with pytest.raises(SpikestrapError, match="expected labels from 0 to 9, got 10"):
            mnist(tmp_path)

    def test_too_few_to_split(self, tmp_path):
        with pytest.raises(SpikestrapError, match="at least 2 training images, got 1"):
            mnist(write_mnist(tmp_path, train=1))

    def test_a_failed_download_points_to_data(self, monkeypatch, tmp_path):
        def retrieve(*args, **kwargs):
            raise ConnectionError("no network\nand more lines")

        monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path)
        monkeypatch.setattr(pooch, "retrieve", retrieve)
        with pytest.raises(SpikestrapError, match=r"\(no network\).*--data"):
            mnist(None)

    def test_a_download_is_cached_and_checked(self, monkeypatch, tmp_path):
        asked = []

        def retrieve(url, known_hash, fname, path):
            asked.append((url, known_hash, fname))
            write_mnist(Path(path))

        monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / name)
        monkeypatch.setattr(pooch, "retrieve", retrieve)
        assert len(mnist(None).test) == 10
        assert len(asked) == 4
        for url, known_hash, name in asked:
            assert url.endswith("/mnist/" + name)
            assert len(known_hash.removeprefix("sha256:")) == 64


class TestCifar10:
    def test_shapes_range_and_parts(self, tmp_path):
        pixels = write_npz(tmp_path / "train.npz", 20)
        write_npz(tmp_path / "test.npz", 3, seed=1)
        splits = cifar10(tmp_path)
        assert (splits.name, splits.classes) == ("cifar10", 10)
        sizes = [len(part) for part in (splits.train, splits.validation, splits.test)]
        assert sizes == [18, 2, 3]
        torch.testing.assert_close(splits.validation.x[1], torch.tensor(pixels[19]) / 255)
        assert splits.train.y.dtype == torch.int64

    def test_no_folder(self):
        with pytest.raises(SpikestrapError, match="give the folder that holds its batches with --"):
            cifar10(None)

    def test_the_real_one_where_it_lies(self, shared_cifar10):
        test = cifar.read_part(shared_cifar10, "test")
        assert test.images.shape == (10_000, 3, 32, 32)
        assert np.bincount(test.labels).tolist() == 10 * [1000]
        # The means of the colours that everyone subtracts, of the training images: near enough.
        means = test.images.mean((0, 2, 3)) / 255
        np.testing.assert_allclose(means, (0.491, 0.482, 0.447), atol=0.01)


class TestNmnist:
    def test_a_twelfth_of_each_digit_is_for_validation(self, tmp_path):
        splits = nmnist(write_data(tmp_path, each=12), 3)
        assert splits.train.x.shape == (110, 3, *SHAPES["nmnist"])
        assert splits.validation.y.tolist() == list(range(10))
        assert splits.train.y.bincount().tolist() == 10 * [11]
        assert splits.test.y.bincount().tolist() == 10 * [12]
        assert (splits.train.x.dtype, splits.train.y.dtype) == (torch.uint8, torch.int64)

    def test_of_few_recordings_the_last_is_for_validation(self, tmp_path):
        for digit in (1, 5):
            write(tmp_path, "Train", digit, 1, [(0, 0, 0, 0)])
        write(tmp_path, "Test", 1, 1, [(0, 0, 0, 0)])
        splits = nmnist(tmp_path, 1)
        assert (splits.train.y.tolist(), splits.validation.y.tolist()) == ([1], [5])

    def test_one_recording_cannot_be_split(self, tmp_path):
        for part in ("Train", "Test"):
            write(tmp_path, part, 1, 1, [(0, 0, 0, 0)])
        with pytest.raises(SpikestrapError, match="at least 2 training recordings, got 1"):
            nmnist(tmp_path, 1)

    def test_without_a_folder_it_says_where_it_is_found(self):
        with pytest.raises(SpikestrapError, match=r"not downloaded \(https.*with --data"):
            nmnist(None, 1)

    def test_it_needs_to_know_how_many_frames(self, tmp_path):
        with pytest.raises(SpikestrapError, match="time_steps must be a whole number >= 1"):
            load("nmnist", tmp_path, 0)


def test_frames_go_in_as_counts_time_first():
    frames = torch.randint(0, 256, (3, 4, 2, 5, 6), dtype=torch.uint8)
    x = to_input(frames)
    assert (x.shape, x.dtype) == ((4, 3, 2, 5, 6), torch.float32)
    assert x.is_contiguous()
    assert x[1, 2].tolist() == frames[2, 1].tolist()
    images = torch.rand(3, 2, 5, 6)
    assert to_input(images) is images


class TestLoad:
    def test_by_name(self, tmp_path):
        assert load("digits", None, 0).name == "digits"
        assert load("mnist", write_mnist(tmp_path), 0).name == "mnist"
        for part in ("train", "test"):
            write_npz(tmp_path / f"{part}.npz", 2)
        assert load("cifar10", tmp_path, 0).name == "cifar10"
        write_data(tmp_path, each=1)
        assert load("nmnist", tmp_path, 0, 2).name == "nmnist"

    def test_an_unknown_one(self):
        with pytest.raises(
            SpikestrapError, match="expected one of digits, mnist, cifar10, nmnist, got"
        ):
            load("cifar", None, 0)

    def test_a_folder_that_is_none(self, tmp_path):
        with pytest.raises(SpikestrapError, match=r"--data: expected a folder.*missing"):
            load("digits", tmp_path / "missing", 0)

    def test_a_folder_for_digits_is_not_read(self, tmp_path):
        with pytest.warns(SpikestrapWarning, match="digits come with scikit-learn"):
            splits = load("digits", tmp_path, 0)
        assert splits.test.x.equal(digits(0).test.x)
