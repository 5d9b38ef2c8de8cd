"""Every neuron of the package: its compiled kernel, the plain step, and the memory's limit.

T = 16 steps of 2**19 neurons in float32, forward and backward. The limit is 2.5 copies of such
a tensor, the five that must at least move (see `benchmarks/neuron.py`). `first call` is what the
first forward and backward pass of a process take that finds no kernel in its cache: tracing,
compiling both kernels, and holding them against the step; not the loop over threads, which is
compiled once an installation. Kernel and step must agree: spikes to the bit.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from unittest import mock

import torch
from common import arguments, check_spikes, in_turns, ratio, report, rotating
from neurons import NEURONS
from torch import Tensor

import spikestrap as ss

MADE = {name: make("zero") for name, make in NEURONS.items()} | {
    "ChipCUBA": ss.neuron.ChipCUBA(ss.neuron.CUBA(1.0, 0.5, 0.125, v_init=0.5)),
    "Delta": ss.neuron.Delta(0.5),
    "SigmaDelta": ss.neuron.SigmaDelta(0.5),
}
# Of the largest gradient: the reference adds in another order.
TOLERANCE = 1e-4


def forward_backward(
    neuron: ss.neuron.Neuron, backend: str, z: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor]:
    leaf = z.detach().requires_grad_()
    torch.manual_seed(0)  # of noise
    with ss.use_backend(backend):
        spikes: Tensor = neuron(leaf)
    return spikes, torch.autograd.grad(spikes, leaf, grad)[0]


def check(name: str, z: Tensor, grad: Tensor) -> float:
    """Exits unless kernel and step agree; the mean of what comes out."""
    spikes, z_grad = forward_backward(MADE[name], "fused", z, grad)
    expected, expected_grad = forward_backward(MADE[name], "reference", z, grad)
    check_spikes(name, spikes, expected, 0)
    if (z_grad - expected_grad).abs().max() > TOLERANCE * expected_grad.abs().max():
        sys.exit(f"{name}: gradients differ from the step's")
    return (spikes != 0).double().mean().item()


def first_calls() -> dict[str, float]:
    """Seconds of each, with a cache that is empty."""

    def first_call(neuron: ss.neuron.Neuron) -> float:
        z = torch.rand(2, 2, 2)
        start = time.perf_counter()
        forward_backward(neuron, "fused", z, z)
        return time.perf_counter() - start

    first_call(ss.neuron.IF(1.0, reset="none"))  # so that none pays for what is set up once
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.dict(os.environ, {"XDG_CACHE_HOME": folder}),
    ):
        return {name: first_call(neuron) for name, neuron in MADE.items()}


def table(
    seconds: dict[str, list[float]], ratios: dict[str, list[float]], firsts: dict[str, float]
) -> str:
    """Medians, a line a neuron."""
    lines = [f"{'neuron':<16}{'ms':>9}{'over copy limit':>17}{'over reference':>16}{'first s':>9}"]
    for name in MADE:
        found = [1000 * statistics.median(seconds[f"{name} compiled"])]
        found += [statistics.median(ratios[f"{name}_over_copy_limit"])]
        found += [statistics.median(ratios[f"{name}_speedup_over_reference"]), firsts[name]]
        ms, limit, speedup, first = found
        lines.append(f"{name:<16}{ms:>9.2f}{limit:>17.2f}{speedup:>15.1f}x{first:>9.2f}")
    return "\n".join(lines)


def main() -> None:
    options = arguments(__doc__)
    shape = (4, 8, 128) if options.quick else (16, 512, 1024)
    firsts = first_calls()
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(shape, generator=generator).mul_(64).round_().div_(64)  # as the chip's are
    grad = torch.randn(shape, generator=generator)
    activity = {name: check(name, z, grad) for name in MADE}

    zs, grads = rotating(z), rotating(grad)

    def contender(name: str, backend: str) -> Callable[[], object]:
        return lambda: forward_backward(MADE[name], backend, next(zs), next(grads))

    contenders = {f"{name} compiled": contender(name, "fused") for name in MADE}
    contenders |= {f"{name} reference": contender(name, "reference") for name in MADE}
    copies = rotating(torch.zeros_like(z))
    contenders["copy"] = lambda: next(copies).copy_(next(zs))

    seconds = in_turns(contenders, options.rounds)
    ratios = {}
    for name in MADE:
        ours = seconds[f"{name} compiled"]
        ratios[f"{name}_over_copy_limit"] = ratio(ours, seconds["copy"], 5 / 2)
        ratios[f"{name}_speedup_over_reference"] = ratio(seconds[f"{name} reference"], ours)
    print(table(seconds, ratios, firsts), end="\n\n", file=sys.stderr if options.json else None)
    facts = {"shape": shape, "activity": activity, "first_call_seconds": firsts}
    report(options, ratios, seconds, (), **facts)


if __name__ == "__main__":
    main()
