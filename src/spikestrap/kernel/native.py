"""LLVM code to machine code for this processor, kept in a folder of the user's.

The folder is `spikestrap` in $XDG_CACHE_HOME, by default ~/.cache. Where it cannot be
written, the next process compiles again.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import llvmlite
from llvmlite import binding as llvm

from ..errors import SpikestrapError
from ..files import write_file

# Machine code stays where it is for as long as the process lives.
_engines: list[llvm.ExecutionEngine] = []


def load(code: str) -> int:
    """The address of the function `kernel` of LLVM code, the text of a module."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    processor = (llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten())
    target = llvm.Target.from_default_triple()
    about = (llvmlite.__version__, target.triple, *processor, code)
    name = hashlib.sha256("\n".join(about).encode()).hexdigest()[:24]
    machine = target.create_target_machine(*processor, opt=3, jit=True)
    binary = _read(name)
    if binary is None:
        binary = _compile(code, machine)
        _keep(name, binary)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(binary))
    engine.finalize_object()
    _engines.append(engine)
    address: int = engine.get_function_address("kernel")
    return address


def folder() -> Path:
    """Where machine code is kept."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "spikestrap"


def _compile(code: str, machine: llvm.TargetMachine) -> bytes:
    """An object file."""
    module = llvm.parse_assembly(code)
    module.verify()
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    tuning = llvm.create_pipeline_tuning_options(speed_level=3)
    tuning.loop_vectorization = True
    builder = llvm.create_pass_builder(machine, tuning)
    builder.getModulePassManager().run(module, builder)
    binary: bytes = machine.emit_object(module)
    return binary


def _read(name: str) -> bytes | None:
    """What was kept under that name, if it is whole: a digest comes first."""
    try:
        content = (folder() / f"{name}.o").read_bytes()
    except (OSError, RuntimeError):  # no home is a RuntimeError
        return None
    digest, binary = content[:32], content[32:]
    return binary if hashlib.sha256(binary).digest() == digest else None


def _keep(name: str, binary: bytes) -> None:
    try:
        path = folder() / f"{name}.o"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, hashlib.sha256(binary).digest() + binary)
    except (OSError, RuntimeError, SpikestrapError):
        return
