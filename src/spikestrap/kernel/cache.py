"""Generated modules, kept in a folder of the user's so that later processes need not compile.

The folder is `spikestrap` in $XDG_CACHE_HOME, by default ~/.cache. Where it cannot be
written, modules live in memory, and the next process compiles again.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

from ..errors import SpikestrapError
from ..files import write_file
from . import vector


def load(source: str) -> ModuleType:
    """The module of that source; CACHE in it says whether numba can keep what it compiles."""
    # numba keeps what it compiled beside the file, and checks the file only: not what it calls.
    called = Path(vector.__file__).read_bytes()
    name = f"kernel_{hashlib.sha256(source.encode() + called).hexdigest()[:24]}"
    path = _kept(f"{name}.py", f"CACHE = True\n{source}".encode())
    if path is None:
        module = ModuleType(name)
        exec(compile(f"CACHE = False\n{source}", f"<{name}>", "exec"), vars(module))
        return module
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def folder() -> Path:
    """Where the modules are kept."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "spikestrap"


def _kept(name: str, content: bytes) -> Path | None:
    """Where the file of that name and content is, written if it must be; None if it cannot be."""
    try:
        path = folder() / name
        if not (path.exists() and path.read_bytes() == content):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, content)
    except (OSError, RuntimeError, SpikestrapError):  # no home is a RuntimeError
        return None
    return path
