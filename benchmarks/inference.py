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

import torch
from common import arguments, in_turns, ratio, report
from networks import ALLOWED, PEERS, cnn, copy_weights, mlp, relu_network
from torch import Tensor

import spikestrap as ss
from spikestrap.timeaxis import compact


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
    architectures = {"mlp": mlp(sizes["mlp"]), "cnn": cnn(*sizes["cnn"])}
    contenders: dict[str, Callable[[], object]] = {}
    images: dict[str, int] = {}
    activity: dict[str, list[float]] = {}
    torch.manual_seed(0)
    with torch.inference_mode():
        for kind, architecture in architectures.items():
            ours = architecture.ours(time_steps)
            peers = {name: make(architecture, time_steps) for name, make in PEERS.items()}
            peers["relu"] = relu_network(architecture)
            for peer in peers.values():
                copy_weights(ours, peer)
                peer.eval()
            runs = {"frozen": ours.eval().freeze(), "spikestrap": ours, **peers}
            # More than the usual range of pixels: torch's initial weights make for few spikes.
            x = 2 * torch.rand(batches[0], *architecture.shape)
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
    for kind in architectures:
        for batch in batches:
            frozen = seconds[f"{kind} {batch} frozen"]
            for name in (*PEERS, "spikestrap", "relu", "products"):
                key = f"{kind}_{batch}_speedup_over_{name}"
                ratios[key] = ratio(seconds[f"{kind} {batch} {name}"], frozen)
    per_second = {
        name: round(images[name] / statistics.median(values)) for name, values in seconds.items()
    }
    facts = {"sizes": sizes, "batches": batches, "time_steps": time_steps, "activity": activity}
    report(options, ratios, seconds, tuple(PEERS), **facts, images_per_second=per_second)


if __name__ == "__main__":
    main()
