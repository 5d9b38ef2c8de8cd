"""A kernel compiled from a neuron's step against the hand-written one and the plain scan.

The same LIF and CUBA neurons each way, T = 16 steps of 2**18 neurons in float32, forward and
backward, for the cheapest and the dearest surrogate. All must agree: spikes to the bit.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from common import arguments, check_spikes, in_turns, ratio, report
from torch import Tensor

import spikestrap as ss


class CompiledLIF(ss.neuron.LIF):
    """A step of its own, though the same, goes without the hand-written kernel."""

    def step(self, z: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        return super().step(z, state)


class CompiledCUBA(ss.neuron.CUBA):
    def step(self, z: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        return super().step(z, state)


def contender(
    neuron: ss.neuron.Neuron, backend: str, z: Tensor, grad: Tensor
) -> Callable[[], Tensor]:
    def run() -> Tensor:
        leaf = z.detach().requires_grad_()
        with ss.use_backend(backend):
            spikes: Tensor = neuron(leaf)
        torch.autograd.grad(spikes, leaf, grad)
        return spikes

    return run


def main() -> None:
    options = arguments(__doc__)
    shape = (4, 8, 128) if options.quick else (16, 512, 512)
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(shape, generator=generator)
    grad = torch.randn(shape, generator=generator)
    decays = {"voltage_decay": 1 / 16}, {"voltage_decay": 1 / 16, "current_decay": 0.5}
    kinds = {
        "lif": (ss.neuron.LIF, CompiledLIF, decays[0]),
        "cuba": (ss.neuron.CUBA, CompiledCUBA, decays[1]),
    }
    contenders = {}
    for name, (written, compiled, values) in kinds.items():
        for surrogate in ("arctan", "exponential"):
            case = f"{name}_{surrogate}"
            made = {"threshold": 1.0, "surrogate": surrogate, **values}
            contenders[f"{case} hand-written"] = contender(written(**made), "fused", z, grad)
            contenders[f"{case} compiled"] = contender(compiled(**made), "fused", z, grad)
            contenders[f"{case} reference"] = contender(compiled(**made), "reference", z, grad)
            expected = contenders[f"{case} hand-written"]()
            for way in ("compiled", "reference"):
                check_spikes(f"{case} {way}", contenders[f"{case} {way}"](), expected, 0)

    seconds = in_turns(contenders, options.rounds)
    ratios = {}
    for case in (name.partition(" ")[0] for name in contenders if name.endswith("compiled")):
        ours = seconds[f"{case} compiled"]
        ratios[f"{case}_over_hand_written"] = ratio(ours, seconds[f"{case} hand-written"])
        ratios[f"{case}_speedup_over_reference"] = ratio(seconds[f"{case} reference"], ours)
    report(options, ratios, seconds, (), shape=shape, activity=expected.mean().item())


if __name__ == "__main__":
    main()
