"""Files are written whole or not at all, and weights are read as tensors only."""

from __future__ import annotations

import contextlib
import os
import pickle
import warnings
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from .errors import SpikestrapError

_NUMBERS = {
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
}


def write_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: to a temporary file beside it, which is then renamed.

    A link stays one: the file that it names is written.

    Raises:
        SpikestrapError: it cannot be written, or is no file.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file() and not path.is_dir():
        raise SpikestrapError(f"{path}: cannot be written: expected a file, got a device or a pipe")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave the new name on no content
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            why = error.strerror or error
            raise SpikestrapError(f"{path}: cannot be written: {why}") from error
        raise


def read_file(path: Path, limit: int) -> bytes:
    """What is in a file that may come from anywhere.

    Raises:
        SpikestrapError: it cannot be read, or has more than `limit` bytes.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise SpikestrapError(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(content) > limit:
        raise SpikestrapError(f"{path}: expected at most {limit} bytes, got more")
    return content


def check_unpacked(path: Path, limit: int) -> None:
    """To call before a zip is unpacked, which may be small and unpack to much.

    Raises:
        SpikestrapError: it unpacks to more than `limit` bytes. What cannot be read as a zip raises
            what it does in zipfile.
    """
    with zipfile.ZipFile(path) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > limit:
        raise SpikestrapError(f"{path}: expected at most {limit} bytes, unpacks to {size}")


def read_weights(path: Path, limit: int) -> dict[str, Tensor]:
    """The state dict in a file that `torch.save` wrote; it may come from anywhere.

    limit: bytes that it may unpack to, and that its tensors may have. Raises SpikestrapError: it
    is larger, damaged, or holds anything but plain tensors by name.
    """
    try:
        check_unpacked(path, limit)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on a damaged pickle; what comes out is checked
            state = torch.load(path, map_location="cpu", weights_only=True)
    except SpikestrapError:
        raise
    except OSError as error:
        raise SpikestrapError(f"{path}: cannot be read: {error.strerror or error}") from error
    except pickle.UnpicklingError as error:
        if "Unsupported global" not in str(error):
            raise _damaged(path, error) from error
        raise SpikestrapError(
            f"{path}: expected a state dict, as torch.save(net.state_dict(), path) writes it, got "
            "objects whose code would have to run, as torch.save(net, path) writes them"
        ) from error
    except Exception as error:  # a damaged archive makes zipfile and torch raise all sorts
        raise _damaged(path, error) from error
    if not isinstance(state, dict):
        raise SpikestrapError(f"{path}: expected a state dict, got {type(state).__name__}")
    left = limit
    for name, value in state.items():
        if not isinstance(name, str) or not _is_plain(value):
            raise SpikestrapError(f"{path}: {_short(name)}: expected a plain tensor by its name")
        # A view repeats what is stored as often as it likes.
        left -= value.numel() * value.element_size()
        if left < 0:
            raise SpikestrapError(
                f"{path}: {_short(name)}: its tensors, of which one has shape "
                f"{tuple(value.shape)}, have more than {limit} bytes"
            )
    return state


def _damaged(path: Path, error: Exception) -> SpikestrapError:
    return SpikestrapError(
        f"{path}: expected weights as torch saves them, got a damaged file ({type(error).__name__})"
    )


def _is_plain(value: object) -> bool:
    """Whether it is a tensor of numbers that lie in memory, one after the other or in strides."""
    return (
        isinstance(value, Tensor)
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and value.dtype in _NUMBERS
    )


def _short(name: object) -> str:
    text = repr(name)
    return text if len(text) < 80 else f"{text[:77]}..."
