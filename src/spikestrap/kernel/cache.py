"""Generated modules, kept in a folder of the user's so that later processes need not compile.

The folder is `spikestrap` in $XDG_CACHE_HOME, by default ~/.cache. Where it cannot be
written, modules live in memory, and the next process compiles again.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from types import ModuleType

from . import vector


def load(source: str) -> ModuleType:
    """The module of that source; CACHE in it says whether numba can keep what it compiles."""
    # numba keeps what it compiled beside the file, and checks the file only: not what it calls.
    called = Path(vector.__file__).read_bytes()
    name = f"kernel_{hashlib.sha256(source.encode() + called).hexdigest()[:24]}"
    path = _write(folder() / f"{name}.py", f"CACHE = True\n{source}")
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


def _write(path: Path, text: str) -> Path | None:
    """Writes the file whole, unless it is there as it should be; None where that fails."""
    try:
        if path.exists() and path.read_text() == text:
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
            file.write(text)
        os.replace(file.name, path)
    except (OSError, RuntimeError, UnicodeDecodeError):  # no home is a RuntimeError
        return None
    return path
