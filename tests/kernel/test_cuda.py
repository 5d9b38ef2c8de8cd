"""Kernels for GPUs. What they compute is checked by `triton_cases`, here run by itself."""

import os
import re
import sys
from pathlib import Path

import pytest
import torch
from tests.kernel.test_automatic import Many, names
from tests.processes import run

from spikestrap import SpikestrapError, SpikestrapWarning
from spikestrap.kernel import backend, cuda, explain, use_backend
from spikestrap.kernel.derivative import Wanted
from spikestrap.kernel.trace import trace
from spikestrap.kernel.triton_source import OPERATIONS, backward_source, forward_source
from spikestrap.kernel.vector import OPERATIONS as ON_CPU
from spikestrap.neuron import CUBA, LIF
from spikestrap.neuron.chip import ChipCUBA


def need_triton():
    if not os.environ.get("CI"):  # where it must be there
        pytest.importorskip("triton", reason="needs Triton (pip install triton), for Linux only")


def run_cases(**variables):
    """In a process of their own, since Triton reads whether to interpret when it is imported."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    command += ["-W", "ignore::RuntimeWarning", "tests/kernel/triton_cases.py"]
    outcome = run(*command, cwd=Path(__file__).parents[2], **variables)
    assert outcome.returncode == 0, outcome.stdout[-5000:] + outcome.stderr[-2000:]
    assert re.search(r"^\d+ passed", outcome.stdout.splitlines()[-1])


@pytest.mark.slow
def test_in_the_interpreter():
    need_triton()
    run_cases(TRITON_INTERPRET="1")


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu():
    need_triton()
    run_cases(TRITON_INTERPRET="0")


def assembly(source, monkeypatch, tmp_path):
    """What Triton's compiler makes of a kernel for an H100, which need not be there."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    import triton
    from triton.backends.compiler import GPUTarget

    kernel = cuda._Kernel(source)

    def kind(name):
        if name == "neurons" or name.startswith(("stride_x", "stride_grad_spikes")):
            return "i64"
        if name in ("inner", "channels", "time_steps", "stretch") or name.startswith("stride"):
            return "i32"
        half = name in ("spikes", "grad_spikes") or re.fullmatch(r"(grad_)?x0", name)
        return "*bf16" if half else "*fp32"

    signature = {name: kind(name) for name in kernel.arguments} | {"BLOCK": "constexpr"}
    made = triton.compile(
        triton.compiler.ASTSource(kernel.function, signature, {"BLOCK": cuda._BLOCK}),
        target=GPUTarget("cuda", 90, 32),
        options={"num_warps": cuda._WARPS, "enable_fp_fusion": False},
    )
    return made.asm["ptx"]


@pytest.mark.parametrize(
    "neuron",
    [
        CUBA(1.0, 0.3, torch.rand(3), learnable=("threshold", "voltage_decay")),
        ChipCUBA(CUBA(1.0, 0.3, 0.1)),
        pytest.param(Many(names(Many)), marks=pytest.mark.slow),
    ],
    ids=lambda neuron: type(neuron).__name__,
)
def test_compiles_without_a_gpu(neuron, monkeypatch, tmp_path):
    need_triton()
    z = torch.rand(4, 2, 3)
    structure = trace(neuron.step, z[0], neuron.init_state(z[0])).structure
    scalars, channels = (tuple(range(n)) for n in (structure.scalars, structure.channels))
    forward = assembly(forward_source(structure), monkeypatch, tmp_path)
    assert not re.search(r"fma\.rn\.f32|div\.(full|approx)|sqrt\.approx", forward)
    wanted = Wanted((0,), scalars, channels)
    assert "bar.sync" in assembly(backward_source(structure, wanted), monkeypatch, tmp_path)


def test_knows_every_operation():
    assert OPERATIONS.keys() == ON_CPU.keys()


@pytest.mark.parametrize("time_steps", [1, 2, 3, 16, 100, 4096])
def test_stretches_are_about_as_many_as_they_have_steps(time_steps):
    stretch = cuda.stretch_of(time_steps, 2)
    count = -(-time_steps // stretch)
    assert 1 <= stretch <= time_steps
    assert stretch + count <= 2 * time_steps**0.5 + 2


def test_without_triton_the_step_runs_and_a_warning_says_so_once(monkeypatch):
    neuron, z = LIF(1.0, 0.1), torch.rand(4, 2, 3, dtype=torch.bfloat16)
    expected = neuron(z)
    monkeypatch.setattr(backend, "takes_triton", lambda z: True)
    monkeypatch.setattr(backend, "_HAS_TRITON", False)
    backend._say_that_triton_is_missing.cache_clear()
    with pytest.warns(SpikestrapWarning, match="need Triton, which is not installed") as warned:
        spikes = [neuron(z) for _ in range(2)]
    assert len(warned) == 1
    assert all(torch.equal(out, expected) for out in spikes)
    assert spikes[0].dtype is torch.bfloat16
    assert explain(neuron, z).backend == "reference"
    with use_backend("fused"), pytest.raises(SpikestrapError, match="where Triton is installed"):
        neuron(z)
