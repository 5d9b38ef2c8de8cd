"""Damaged files by the thousand, each parsed where a hang or a crash cannot reach the tests."""

import multiprocessing
import random
import resource
from pathlib import Path

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
