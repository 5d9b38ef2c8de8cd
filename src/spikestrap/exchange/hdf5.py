"""Reads an HDF5 file from outside in a process of its own, with a bound on time and memory.

The HDF5 library loops without end on some damaged files (a text's length that wraps around),
and no exception gets out of that; a process can be ended.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from ..errors import SpikestrapError
from . import hdf5_worker
from .hdf5_worker import Tree

# The worker alone: importing it as a part of the package would import torch.
_START = (
    "import json, runpy, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "sys.argv = sys.argv[2:]; runpy.run_path(sys.argv[0], run_name='__main__')"
)
# Far more than a sound file takes.
_SECONDS, _BYTES_A_SECOND = 30.0, 10e6


def read_tree(path: Path, max_bytes: int, seconds: float | None = None) -> Tree:
    """The file's groups as dicts, its data sets as arrays, numbers and texts.

    max_bytes bounds the sum of what they declare; seconds the time, by default 30 and more for
    large files. Raises SpikestrapError for what is not HDF5, is damaged, links elsewhere, or
    goes beyond these bounds.
    """
    if seconds is None:
        seconds = _SECONDS + path.stat().st_size / _BYTES_A_SECOND
    worker = [hdf5_worker.__file__, str(path.resolve()), str(max_bytes)]
    command = [sys.executable, "-I", "-c", _START, json.dumps(sys.path), *worker]
    try:
        done = subprocess.run(command, capture_output=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        raise SpikestrapError(
            f"not a readable HDF5 file: HDF5 was not done after {seconds:g} s"
        ) from None
    if done.returncode == 3:
        raise SpikestrapError(" ".join(done.stderr.decode(errors="replace").split()))
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise SpikestrapError(
            f"not a readable HDF5 file: HDF5 ended with {done.returncode} {' '.join(last)}".strip()
        )
    return hdf5_worker.receive(bytearray(done.stdout))
