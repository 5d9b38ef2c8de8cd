"""The data sets of the recipes, split into training, validation and test parts.

Every choice during training rests on the validation part; the test part is for the final number.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..counts import whole_number
from ..errors import SpikestrapError, warn
from . import cifar, events
from .extras import require
from .idx import read_idx

_MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
# SHA-256 of the four files as published.
_MNIST_FILES = {
    "train-images-idx3-ubyte.gz": (
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
    ),
    "train-labels-idx1-ubyte.gz": (
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
    ),
    "t10k-images-idx3-ubyte.gz": (
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
    ),
    "t10k-labels-idx1-ubyte.gz": (
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
    ),
}
# Shape (C, H, W) of one image.
SHAPES = {"digits": (1, 8, 8), "mnist": (1, 28, 28), "cifar10": cifar.SHAPE, "nmnist": events.SHAPE}
# Those whose samples run over time, which come as T frames of that shape.
TEMPORAL = ("nmnist",)
_MNIST_CLASSES = 10
_MNIST_MAX_ITEMS = 70_000
# One in so many of the training images: 5,000 of MNIST's 60,000 and of CIFAR-10's 50,000.
_VALIDATION_PART = {"mnist": 12, "cifar10": 10}
_NMNIST_EVERY = 12


@dataclass(frozen=True)
class Arrays:
    """Images, or frames of events, and their classes.

    Attributes:
        x: float32 (N, C, H, W), pixels in [0, 1]; or uint8 (N, T, C, H, W), events of each step.
        y: int64 (N,), classes from 0.
    """

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def to(self, device: torch.device) -> Arrays:
        """The same arrays on ``device``."""
        return Arrays(self.x.to(device), self.y.to(device))


@dataclass(frozen=True)
class Splits:
    """A data set: what it is called, how many classes it has, and its three parts."""

    name: str
    classes: int
    train: Arrays
    validation: Arrays
    test: Arrays


def check_part(name: str, part: Arrays, classes: int) -> None:
    """See that one can train or validate on a part of a data set.

    Raises:
        SpikestrapError: it is empty, images and labels do not belong together, or they are not
            of the types that `Arrays` names.

    >>> check_part("train", Arrays(torch.rand(2, 1, 8, 8), torch.tensor([0, 10])), classes=10)
    Traceback (most recent call last):
    ...
    spikestrap.errors.SpikestrapError: train, labels: expected 0 to 9, got 0 to 10
    """
    wanted = {"images": (part.x, (torch.float32, torch.uint8)), "labels": (part.y, (torch.int64,))}
    for what, (values, types) in wanted.items():
        got = values.dtype if isinstance(values, Tensor) else type(values).__name__
        if got not in types:
            expected = " or ".join(map(str, types))
            raise SpikestrapError(f"{name}, {what}: expected a tensor of {expected}, got {got}")
    if not len(part.x) == len(part.y) > 0 or part.y.ndim != 1:
        raise SpikestrapError(
            f"{name}: expected images and as many labels, at least one, got images "
            f"{tuple(part.x.shape)} and labels {tuple(part.y.shape)}"
        )
    low, high = (int(value) for value in part.y.aminmax())
    if low < 0 or high >= classes:
        raise SpikestrapError(f"{name}, labels: expected 0 to {classes - 1}, got {low} to {high}")


def to_input(x: Tensor) -> Tensor:
    """What a network takes: images as they are, frames (N, T, ...) as float32 (T, N, ...).

    >>> to_input(torch.ones(5, 4, 2, 34, 34, dtype=torch.uint8)).shape
    torch.Size([4, 5, 2, 34, 34])
    """
    if x.dtype != torch.uint8:
        return x
    return x.transpose(0, 1).to(torch.float32, memory_format=torch.contiguous_format)


def load(name: str, folder: Path | None, seed: int, time_steps: int | None = None) -> Splits:
    """Load a data set by its name: ``"digits"``, ``"mnist"``, ``"cifar10"`` or ``"nmnist"``.

    Args:
        name: the data set.
        folder: where its files lie; None for the bundled or downloaded ones.
        seed: picks the validation part where the data set leaves that open (digits).
        time_steps: into how many frames a sample goes, where it runs over time.
    """
    if folder is not None and not folder.is_dir():
        raise SpikestrapError(f"--data: expected a folder with the data set's files, got {folder}")
    if name == "digits":
        if folder is not None:
            warn(f"--data: the digits come with scikit-learn, nothing is read from {folder}")
        return digits(seed)
    if name == "mnist":
        return mnist(folder)
    if name == "cifar10":
        return cifar10(folder)
    if name == "nmnist":
        return nmnist(folder, whole_number("time_steps", time_steps, 1))
    raise SpikestrapError(f"data: expected one of {', '.join(SHAPES)}, got {name!r}")


def digits(seed: int = 0) -> Splits:
    """Scikit-learn's bundled handwritten digits: 1,797 images (1, 8, 8) of 10 classes.

    The test part (450 images) is the same whatever the seed; the seed picks the validation part
    (135 images) of the rest. Both hold the classes in equal shares.

    >>> splits = digits()
    >>> len(splits.train), len(splits.validation), len(splits.test)
    (1212, 135, 450)
    """
    bunch = require("sklearn.datasets", "digits").load_digits()
    x = torch.from_numpy((bunch.images / 16).astype(np.float32)).unsqueeze(1)
    y = torch.from_numpy(bunch.target.astype(np.int64))
    split = require("sklearn.model_selection", "digits").train_test_split
    rest, test = split(np.arange(len(y)), test_size=450, random_state=0, stratify=y)
    train, validation = split(rest, test_size=135, random_state=seed, stratify=y[rest])
    return Splits("digits", 10, *(Arrays(x[i], y[i]) for i in (train, validation, test)))


def mnist(folder: Path | None = None) -> Splits:
    """MNIST: 70,000 images (1, 28, 28) of 10 classes, from its four IDX files.

    The last twelfth of the training images (5,000 of 60,000) is the validation part.

    Args:
        folder: where the files lie, gzipped or not, as ``train-images-idx3-ubyte`` or
            ``train-images.idx3-ubyte``, or below it as torchvision stores them
            (``MNIST/raw``). None downloads them once into the user's cache.

    Raises:
        SpikestrapError: a file is missing, is not what it should be, or cannot be downloaded.
    """
    folder = _download_mnist() if folder is None else folder
    rest = _mnist_part(folder, "train")
    test = _mnist_part(folder, "t10k")
    return _split("mnist", folder, _MNIST_CLASSES, rest, test)


def cifar10(folder: Path | None) -> Splits:
    """CIFAR-10: 60,000 images (3, 32, 32) of 10 classes.

    The last tenth of the training images (5,000 of 50,000) is the validation part.

    Args:
        folder: where its binary or Python batches lie, or below it as they unpack, or
            ``train.npz`` and ``test.npz`` with JPEG images; see `train.cifar`.

    Raises:
        SpikestrapError: no folder was given, or a file is missing or is not what it should be.
    """
    if folder is None:
        raise SpikestrapError(
            "CIFAR-10 is not downloaded (https://www.cs.toronto.edu/~kriz/cifar.html, 160 MB): "
            "give the folder that holds its batches with --data"
        )
    rest, test = (_arrays(*cifar.read_part(folder, part)) for part in ("train", "test"))
    return _split("cifar10", folder, cifar.CLASSES, rest, test)


def nmnist(folder: Path | None, time_steps: int) -> Splits:
    """N-MNIST: 70,000 recordings of 10 digits by an event camera, each as T frames (2, 34, 34).

    Every twelfth of the training recordings (5,000 of 60,000) is in the validation part: they
    lie in order of their digits.

    Args:
        folder: where ``NMNIST/Train`` and ``NMNIST/Test`` lie, as tonic stores them.
        time_steps: T, the bins in time; see `train.events`.

    Raises:
        SpikestrapError: no folder was given, tonic is not installed, or a file is missing or is
            not what it should be.
    """
    if folder is None:
        raise SpikestrapError(
            "N-MNIST is not downloaded (https://www.garrickorchard.com/datasets/n-mnist, 1.2 GB): "
            "give the folder that holds NMNIST/Train and NMNIST/Test with --data"
        )
    rest, test = (_frames(events.read_part(folder, part, time_steps)) for part in ("train", "test"))
    picked = torch.arange(len(rest)) % _NMNIST_EVERY == _NMNIST_EVERY - 1
    picked[-1] |= not picked.any()
    if picked.all():
        raise SpikestrapError(f"{folder}: expected at least 2 training recordings, got {len(rest)}")
    train, validation = (Arrays(rest.x[kept], rest.y[kept]) for kept in (~picked, picked))
    return Splits("nmnist", events.CLASSES, train, validation, test)


def _frames(part: events.Part) -> Arrays:
    return Arrays(*map(torch.from_numpy, part))


def _split(name: str, folder: Path, classes: int, rest: Arrays, test: Arrays) -> Splits:
    """The last of the training images become the validation part."""
    cut = len(rest) - max(1, len(rest) // _VALIDATION_PART[name])
    if cut < 1:
        raise SpikestrapError(f"{folder}: expected at least 2 training images, got {len(rest)}")
    train, validation = (Arrays(rest.x[s], rest.y[s]) for s in (slice(cut), slice(cut, None)))
    return Splits(name, classes, train, validation, test)


def _arrays(images: np.ndarray, labels: np.ndarray) -> Arrays:
    """Bytes (N, C, H, W) and labels (N,) as what a network takes."""
    x = torch.from_numpy(images).to(torch.float32).div_(255)
    return Arrays(x, torch.from_numpy(labels).to(torch.int64))


def _mnist_part(folder: Path, part: str) -> Arrays:
    image_path = _find(folder, part, "images", 3)
    label_path = _find(folder, part, "labels", 1)
    images = read_idx(image_path, (28, 28), _MNIST_MAX_ITEMS)
    labels = read_idx(label_path, (), _MNIST_MAX_ITEMS)
    if len(images) != len(labels):
        raise SpikestrapError(
            f"{label_path}: expected a label for each of the {len(images)} images, "
            f"got {len(labels)}"
        )
    if labels.max() >= _MNIST_CLASSES:
        raise SpikestrapError(f"{label_path}: expected labels from 0 to 9, got {labels.max()}")
    return _arrays(images[:, None], labels)


def _find(folder: Path, part: str, kind: str, dims: int) -> Path:
    for place in (folder, folder / "MNIST" / "raw"):
        for dot in ("-", "."):
            for suffix in ("", ".gz"):
                path = place / f"{part}-{kind}{dot}idx{dims}-ubyte{suffix}"
                if path.is_file():
                    return path
    raise SpikestrapError(
        f"{folder}: expected the four IDX files of MNIST, "
        f"found no {part}-{kind}-idx{dims}-ubyte, with or without .gz"
    )


def _download_mnist() -> Path:
    pooch = require("pooch", "the download of MNIST")
    # Pooch fails in many ways: no network, the cache not writable, a wrong checksum. To the caller
    # they are one: no data.
    cache = Path(pooch.os_cache("spikestrap")) / "mnist"
    try:
        for name, checksum in _MNIST_FILES.items():
            pooch.retrieve(_MNIST_URL + name, f"sha256:{checksum}", fname=name, path=cache)
    except (OSError, ValueError) as error:
        raise SpikestrapError(
            f"MNIST could not be downloaded from {_MNIST_URL} into {cache} "
            f"({_first_line(error)}); give the folder that holds its four files with --data"
        ) from error
    return cache


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
