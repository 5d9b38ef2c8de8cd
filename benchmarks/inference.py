"""Inference as an SNN: images a second of two networks at T = 4, ours and other libraries'.

The networks are an MLP 784-512-512-10 and a CNN, 1-16-32 channels, 3 x 3, average pooling and 128
hidden neurons, on static images 28 x 28, in batches of 256, 32 and 1. All libraries have the
same weights and the same LIF neurons, run under torch.inference_mode and must give the same
logits. Ours runs twice: `spikestrap` is `net.eval()`, `frozen` is `net.freeze()`. The others are
written as their documentation has it: SpikingJelly in multi-step mode, snnTorch and Norse step
by step; all repeat the input, so that the first layer is computed T times. Two limits: `relu`
is the same network in plain torch with ReLU for the neurons; `products` are the dense products
and convolutions of the SNN alone, the first layer's once. `..._speedup_over_...` is another's time
over that of `frozen`.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import norse.torch as norse
import snntorch
import torch
from common import LEAK, LIF, THRESHOLD, arguments, cnn_layers, in_turns, ratio, report
from spikingjelly.activation_based import functional, layer, neuron
from step import copy_weights
from torch import Tensor, nn

import spikestrap as ss
from spikestrap.timeaxis import compact

PEERS = ("snntorch", "spikingjelly", "norse")
# Products of other shapes sum in another order, which now and then tips a membrane.
ALLOWED = 1e-3

Neurons = Callable[[], nn.Module]


def mlp(neurons: Neurons, widths: tuple[int, ...]) -> list[nn.Module]:
    a, b, c, d = widths
    return [nn.Linear(a, b), neurons(), nn.Linear(b, c), neurons(), nn.Linear(c, d)]


def our_mlp(time_steps: int, widths: tuple[int, ...]) -> ss.Network:
    a, b, c, d = widths
    return ss.Network(
        ss.block.lif.Dense(LIF, a, b, bias=True),
        ss.block.lif.Dense(LIF, b, c, bias=True),
        ss.block.lif.Affine(LIF, c, d),
        time_steps=time_steps,
    )


def our_cnn(time_steps: int, size: int, widths: tuple[int, ...]) -> ss.Network:
    one, two, hidden = widths
    return ss.Network(
        ss.block.lif.Conv(LIF, 1, one, 3, padding=1, bias=True),
        ss.block.AvgPool(2),
        ss.block.lif.Conv(LIF, one, two, 3, padding=1, bias=True),
        ss.block.AvgPool(2),
        ss.block.Flatten(),
        ss.block.lif.Dense(LIF, two * (size // 4) ** 2, hidden, bias=True),
        ss.block.lif.Affine(LIF, hidden, 10),
        time_steps=time_steps,
    )


class SNNTorchNetwork(nn.Module):
    """Step by step, after snnTorch's tutorials 5 and 6; logits are averaged over time."""

    def __init__(self, layers: Callable[[Neurons], list[nn.Module]], time_steps: int) -> None:
        super().__init__()
        self.layers, self.time_steps = nn.Sequential(*layers(self._leaky)), time_steps

    @staticmethod
    def _leaky() -> nn.Module:
        return snntorch.Leaky(
            beta=1 - LEAK, threshold=THRESHOLD, reset_mechanism="zero", init_hidden=True
        )

    def forward(self, x: Tensor) -> Tensor:
        for module in self.layers:
            if isinstance(module, snntorch.Leaky):
                module.reset_mem()
        return torch.stack([self.layers(x) for _ in range(self.time_steps)]).mean(0)


class SpikingJellyNetwork(nn.Module):
    """In multi-step mode, after SpikingJelly's tutorials: a sequence in, the mean rate out."""

    def __init__(self, layers: Callable[[Neurons], list[nn.Module]], time_steps: int) -> None:
        super().__init__()
        # Its own container folds time into the batch for what has no neuron in it.
        found: list[nn.Module] = []
        stateless: list[nn.Module] = []
        for module in layers(self._lif):
            if isinstance(module, neuron.LIFNode):
                found += [layer.SeqToANNContainer(*stateless), module]
                stateless = []
            else:
                stateless.append(module)
        self.layers = nn.Sequential(*found, layer.SeqToANNContainer(*stateless))
        self.time_steps = time_steps

    @staticmethod
    def _lif() -> nn.Module:
        return neuron.LIFNode(
            tau=1 / LEAK, decay_input=False, v_threshold=THRESHOLD, v_reset=0.0, step_mode="m"
        )

    def forward(self, x: Tensor) -> Tensor:
        functional.reset_net(self)
        repeated = x.unsqueeze(0).repeat(self.time_steps, *[1] * x.ndim)
        return self.layers(repeated).mean(0)


class NorseNetwork(nn.Module):
    """Step by step, after Norse's documentation: a SequentialState, which carries the state."""

    def __init__(self, layers: Callable[[Neurons], list[nn.Module]], time_steps: int) -> None:
        super().__init__()
        self.layers, self.time_steps = norse.SequentialState(*layers(self._lif)), time_steps

    @staticmethod
    def _lif() -> nn.Module:
        # v <- v + dt / tau_mem (x - v): as if inputs were scaled by the leak, so the threshold is.
        return norse.LIFBoxCell(
            norse.LIFBoxParameters(
                tau_mem_inv=torch.tensor(LEAK * 1000), v_th=torch.tensor(LEAK * THRESHOLD)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        state, outputs = None, []
        for _ in range(self.time_steps):
            output, state = self.layers(x, state)
            outputs.append(output)
        return torch.stack(outputs).mean(0)


def products(net: ss.Network, x: Tensor) -> tuple[Callable[[], object], list[float]]:
    """All synapses of the network on what they get of the input x; each neuron's event rate."""
    assert net.time_steps is not None
    x, weighings, rates = ss.hold(x, net.time_steps), [], []
    for block in net.blocks:
        if isinstance(block, ss.block.Block):
            weighings.append(partial(block.synapse, compact(x)))
        elif isinstance(block, ss.block.Affine):
            weighings.append(partial(block.synapse, x.mean(0)))
        x = block(x)
        if isinstance(block, ss.block.Block):
            rates.append(round(x.mean().item(), 3))
    return lambda: [weigh() for weigh in weighings], rates


def check(name: str, logits: Tensor, expected: Tensor) -> None:
    """Exits unless another's logits are ours, but for a few spikes that rounding tipped."""
    difference = (logits - expected).abs().mean().item()
    if difference > ALLOWED:
        sys.exit(f"{name}: logits differ from ours by {difference:.2g}; allowed {ALLOWED:g}")


def main() -> None:
    options = arguments(__doc__)
    sizes: dict[str, Any] = {"mlp": (784, 512, 512, 10), "cnn": (28, (16, 32, 128))}
    batches, time_steps = (256, 32, 1), 4
    if options.quick:
        sizes = {"mlp": (64, 32, 32, 10), "cnn": (8, (4, 4, 16))}
        batches = (4, 2, 1)
    networks = {
        "mlp": (partial(mlp, widths=sizes["mlp"]), our_mlp(time_steps, sizes["mlp"])),
        "cnn": (
            partial(cnn_layers, size=sizes["cnn"][0], widths=sizes["cnn"][1]),
            our_cnn(time_steps, *sizes["cnn"]),
        ),
    }
    shapes = {"mlp": sizes["mlp"][:1], "cnn": (1, sizes["cnn"][0], sizes["cnn"][0])}
    contenders: dict[str, Callable[[], object]] = {}
    images: dict[str, int] = {}
    activity: dict[str, list[float]] = {}
    torch.manual_seed(0)
    with torch.inference_mode():
        for kind, (layers, ours) in networks.items():
            peers = {
                "snntorch": SNNTorchNetwork(layers, time_steps),
                "spikingjelly": SpikingJellyNetwork(layers, time_steps),
                "norse": NorseNetwork(layers, time_steps),
                "relu": nn.Sequential(*layers(nn.ReLU)),
            }
            for peer in peers.values():
                copy_weights(ours, peer)
                peer.eval()
            runs = {"frozen": ours.eval().freeze(), "spikestrap": ours, **peers}
            # More than the usual range of pixels: torch's initial weights make for few spikes.
            x = 2 * torch.rand(batches[0], *shapes[kind])
            for name in ("frozen", *PEERS):
                check(f"{kind} {name}", runs[name](x), ours(x))
            for batch in batches:
                weigh, rates = products(ours, x[:batch])
                activity.setdefault(kind, rates)
                parts = {name: partial(run, x[:batch]) for name, run in runs.items()}
                for name, run in {**parts, "products": weigh}.items():
                    contenders[f"{kind} {batch} {name}"] = run
                    images[f"{kind} {batch} {name}"] = batch
        seconds = in_turns(contenders, options.rounds)

    ratios = {}
    for kind in networks:
        for batch in batches:
            frozen = seconds[f"{kind} {batch} frozen"]
            for name in (*PEERS, "spikestrap", "relu", "products"):
                key = f"{kind}_{batch}_speedup_over_{name}"
                ratios[key] = ratio(seconds[f"{kind} {batch} {name}"], frozen)
    per_second = {
        name: round(images[name] / statistics.median(values)) for name, values in seconds.items()
    }
    facts = {"sizes": sizes, "batches": batches, "time_steps": time_steps, "activity": activity}
    report(options, ratios, seconds, PEERS, **facts, images_per_second=per_second)


if __name__ == "__main__":
    main()
