"""Damaged files by the thousand: bytes, what HDF5 makes of them, and what torch saves."""

import copy
import io
import multiprocessing
import random
import resource
import zipfile
from pathlib import Path

import numpy as np
import torch

from spikestrap.exchange import hdf5_worker

_SECONDS_A_FILE = 2


def mutate(content, seed):
    """One file: bytes changed, cut off, repeated, or zeroed, mostly few and mostly in front."""
    draw = random.Random(seed)
    data = bytearray(content)
    kind = draw.randrange(8)
    if kind == 0:
        return bytes(data[: draw.randrange(len(data))])
    if kind == 1:
        start = draw.randrange(len(data))
        data[start : start + draw.randrange(1, 64)] = b""
        return bytes(data)
    if kind == 2:
        start = draw.randrange(len(data))
        data[start : start + draw.randrange(1, 64)] = bytes(draw.randrange(1, 64))
        return bytes(data)
    for _ in range(draw.choice((1, 1, 2, 5, 20))):
        # Structure, not values, lies at the front of blocks; so favour what is not zero.
        at = draw.randrange(len(data))
        while data[at] == 0 and draw.random() < 0.8:
            at = draw.randrange(len(data))
        data[at] = draw.choice(
            (0, 1, 0x7F, 0xFF, draw.randrange(256), data[at] ^ 1 << draw.randrange(8))
        )
    return bytes(data)


def trees(content, count, folder):
    """What the worker makes of `count` damaged files: trees; and how many it refused.

    A child process parses one after the other and is ended where HDF5 hangs, as `read_tree` does
    with its process.
    """
    found, refused, done = [], 0, 0
    while done < count:
        ours, theirs = multiprocessing.Pipe(duplex=False)
        child = multiprocessing.get_context("fork").Process(
            target=_parse, args=(content, range(done, count), Path(folder) / "mutated", theirs)
        )
        child.start()
        theirs.close()
        while done < count:
            try:
                tree = ours.recv() if ours.poll(_SECONDS_A_FILE) else None
            except EOFError:
                tree = None  # it crashed
            done += 1
            if tree is None:
                refused += 1
                break
            if isinstance(tree, dict):
                found.append(tree)
            else:
                refused += 1
        child.kill()
        child.join()
    return found, refused


def _parse(content, seeds, path, pipe):
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for seed in seeds:
        path.write_bytes(mutate(content, seed))
        try:
            pipe.send(hdf5_worker.parse(str(path), 2**26))
        except (hdf5_worker.Refused, MemoryError) as error:
            pipe.send(str(error))


WRONG = (
    {}, "", "NIRGraph", "x" * 1000, -1, 0, 1, 3, 2**31, 2**40, 2**62, -(2**62), 0.5, 1e300, np.nan,
    np.inf, True, np.zeros(0), np.zeros((0, 4)), np.full(3, np.nan), np.ones((1,) * 8),
    np.arange(9), np.ones((2, 3, 4)), np.array([2**62, 2**62]), np.array([2, 2**20, 2**20]),
    np.array([-1, 3]), np.array([1e-300, 1e300]), np.array(["a", "b"], object),
    np.array([["0", "1"]], object), np.zeros(3, np.int8), np.ones((5, 5), np.float16),
    np.array([True, False]),
)  # fmt: skip


def mutate_tree(tree, seed):
    """Groups and arrays as a file might have held them: some gone, wrong, swapped or bent."""
    draw = random.Random(seed)
    tree = copy.deepcopy(tree)
    for _ in range(draw.choice((1, 1, 2, 4))):
        places = list(_places(tree))
        group, name = draw.choice(places)
        other, another = draw.choice(places)
        kind = draw.randrange(6)
        if kind == 0:
            del group[name]
        elif kind == 1:
            group[name] = copy.deepcopy(draw.choice(WRONG))
        elif kind == 2:
            group[name] = copy.deepcopy(other[another])
        elif kind == 3:
            group[draw.choice((another, "0", "extra"))] = group.pop(name)
        else:
            group[name] = _bent(group[name], draw)
    return tree


def _places(group):
    for name, item in group.items():
        yield group, name
        if isinstance(item, dict):
            yield from _places(item)


def _bent(value, draw):
    """The value with its type, shape or some of its numbers changed."""
    array = np.array(value)
    if array.dtype.kind not in "iufb" or not array.size:
        return draw.choice(WRONG)
    kind = draw.randrange(6)
    if kind == 0:
        with np.errstate(all="ignore"):
            return array.astype(draw.choice((np.int8, np.uint64, np.float16, np.float64, bool)))
    if kind == 1:
        return array.reshape(draw.choice(((-1,), (1, -1), (-1, 1), (1, *array.shape))))
    if kind == 2:
        return array.flatten()[: draw.randrange(array.size)]
    if kind == 3:
        return np.concatenate([array.flatten()] * 2)
    bent = array.astype(np.float64)
    number = draw.choice((np.nan, np.inf, -1.0, 0.0, 0.5, 255.0, 2.0**31, -1e300))
    bent.flat[draw.randrange(bent.size) if kind == 4 else slice(None)] = number
    return bent


def mutate_weights(state, seed):
    """What `torch.save` might have written of a state dict, or what became of that."""
    draw = random.Random(seed)
    kind = draw.randrange(3)
    if kind == 0:
        state = dict(state)
        for _ in range(draw.choice((1, 1, 3))):
            name = draw.choice(list(state))
            state[name] = _bent_tensor(state[name], draw)
            if draw.random() < 0.2:
                state[draw.choice(("", "0.weight", 7, ("a",)))] = state.pop(name)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    if kind == 1:
        return mutate(buffer.getvalue(), seed)
    if kind == 2:
        return _mutate_member(buffer, draw, seed)
    return buffer.getvalue()


def _bent_tensor(value, draw):
    if not isinstance(value, torch.Tensor) or not value.is_cpu or value.is_sparse:
        return value
    return draw.choice(
        (
            lambda: value * torch.nan,
            lambda: value + torch.inf,
            lambda: value.flatten()[:1].expand(2**40),  # of four bytes
            lambda: torch.zeros(1).expand(2**20, 2**20, 2**20),
            lambda: value.unsqueeze(0),
            lambda: value.flatten()[1:],
            lambda: value.flatten()[::2],
            lambda: value.to(torch.complex64),
            lambda: value.to(torch.int8),
            lambda: value.half(),
            lambda: value.to_sparse() if value.ndim else value.bool(),
            lambda: value.to(torch.float8_e4m3fn),
            lambda: torch.empty(2**40, device="meta"),
            lambda: 1e4 * value.float(),
            lambda: torch.tensor(2**62),
            lambda: [1, 2],
            lambda: None,
            lambda: "text",
            lambda: {"weight": value},
        )
    )()


def _mutate_member(buffer, draw, seed):
    """The archive with one of its files damaged, its check sum right."""
    changed = io.BytesIO()
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(changed, "w") as new:
        names = old.namelist()
        # What is pickled more often than plain numbers.
        pickled = [name for name in names if name.endswith("data.pkl")]
        target = draw.choice(names + len(names) * pickled)
        for name in names:
            content = old.read(name)
            new.writestr(name, mutate(content, seed) if name == target and content else content)
    return changed.getvalue()
