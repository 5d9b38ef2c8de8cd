"""One training step of an MLP and of a CNN by the number of time steps, and by the batch.

An MLP 784-512-512-10 and a CNN, 1-16-32 channels, 3 x 3, average pooling and 128 hidden neurons, on
static images 28 x 28. A step is forward, cross entropy, backward and Adam. By time steps, on one
batch: ANN mode should not depend on T (`..._ann_256_over_4` at most 1.03), and direct training
should grow no faster than T (`..._snn_16_over_8`, the time at T = 16 over twice that at T = 8, at
most 1.05). By the batch, at one T: ANN mode and direct training over the ReLU network in plain
torch, and over direct training in the fastest of snnTorch, SpikingJelly and Norse, whose first
layer is computed once, as ours is.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from common import arguments, in_turns, ratio, report
from networks import (
    GAIN,
    PEERS,
    Architecture,
    check_direct,
    cnn,
    copy_weights,
    fit_curves,
    mlp,
    our_step,
    relu_network,
    training_step,
)
from torch import Tensor, nn

import spikestrap as ss

Step = Callable[[], None]

ANN_STEPS = (4, 16, 64, 256)
# The CNN's activations are five times the MLP's.
SNN_STEPS = {"mlp": (2, 4, 8, 16, 32), "cnn": (2, 4, 8, 16)}
# Of each batch in the sweep of batches.
TIME_STEPS = 4


def ours(
    mode: str, architecture: Architecture, source: nn.Module, time_steps: int, x: Tensor
) -> ss.Network:
    """Ours with the source's weights, and for ANN mode with curves, sampled on x."""
    network = architecture.ours(time_steps)
    copy_weights(source, network)
    if mode == "ann":
        fit_curves(network, x)
    return network


def by_time_steps(
    kind: str, architecture: Architecture, source: nn.Module, x: Tensor, labels: Tensor
) -> dict[str, Step]:
    """Ours in both modes, at each T, on one batch."""
    steps = {}
    for mode, all_time_steps in (("ann", ANN_STEPS), ("snn", SNN_STEPS[kind])):
        for time_steps in all_time_steps:
            network = ours(mode, architecture, source, time_steps, x[:32])
            steps[f"{kind} {mode}, T = {time_steps}"] = our_step(network, mode, x, labels)
    return steps


def by_batch(
    kind: str, architecture: Architecture, source: nn.Module, x: Tensor, labels: Tensor
) -> dict[str, Step]:
    """Ours in both modes, all peers' and the ReLU network's, at one batch."""
    peers = {name: make(architecture, TIME_STEPS, True) for name, make in PEERS.items()}
    relu = relu_network(architecture)
    for network in (*peers.values(), relu):
        copy_weights(source, network)
    steps = {}
    for mode in ("ann", "snn"):
        network = ours(mode, architecture, source, TIME_STEPS, x)
        check_direct(network, peers, x)
        steps[f"spikestrap {mode}"] = our_step(network, mode, x, labels)
    for name, network in {**peers, "relu": relu}.items():
        steps[name] = training_step(network, network, x, labels)
    return {f"{kind} {len(x)} {name}": step for name, step in steps.items()}


def main() -> None:
    options = arguments(__doc__)
    sizes: dict[str, Any] = {"mlp": (784, 512, 512, 10), "cnn": (28, (16, 32, 128))}
    batch, batches = {"mlp": 256, "cnn": 64}, (16, 64, 256)
    if options.quick:
        sizes = {"mlp": (64, 32, 32, 10), "cnn": (8, (4, 4, 16))}
        batch, batches = {"mlp": 8, "cnn": 8}, (2, 4, 8)
    architectures = {"mlp": mlp(sizes["mlp"]), "cnn": cnn(*sizes["cnn"])}

    torch.manual_seed(0)
    steps: dict[str, Step] = {}
    images: dict[str, int] = {}
    for kind, architecture in architectures.items():
        x = torch.rand(max(batch[kind], *batches), *architecture.shape)
        labels = torch.randint(10, (len(x),))
        source = relu_network(architecture, GAIN)
        few = x[: batch[kind]], labels[: batch[kind]]
        steps |= by_time_steps(kind, architecture, source, *few)
        for size in batches:
            found = by_batch(kind, architecture, source, x[:size], labels[:size])
            images |= dict.fromkeys(found, size)
            steps |= found
    seconds = in_turns(steps, options.rounds)

    ratios: dict[str, list[float]] = {}
    fastest: dict[str, str] = {}
    for kind in architectures:
        few, many = (seconds[f"{kind} ann, T = {time_steps}"] for time_steps in (4, 256))
        ratios[f"{kind}_ann_256_over_4"] = ratio(many, few)
        for one, two in pairwise(SNN_STEPS[kind]):
            few, many = (seconds[f"{kind} snn, T = {time_steps}"] for time_steps in (one, two))
            ratios[f"{kind}_snn_{two}_over_{one}"] = ratio(many, few, two / one)
        for size in batches:
            where = f"{kind} {size}"
            fastest[where] = min(PEERS, key=lambda n: statistics.median(seconds[f"{where} {n}"]))
            for way, mode in (("ann", "ann"), ("direct", "snn")):
                for other, name in (("relu", "relu"), ("fastest_peer", fastest[where])):
                    ratios[f"{kind}_{size}_{way}_over_{other}"] = ratio(
                        seconds[f"{where} spikestrap {mode}"], seconds[f"{where} {name}"]
                    )
    per_second = {
        name: round(count / statistics.median(seconds[name])) for name, count in images.items()
    }
    facts = {"sizes": sizes, "batch": batch, "batches": batches, "time_steps": TIME_STEPS}
    facts |= {"fastest_peer": fastest, "images_per_second": per_second}
    report(options, ratios, seconds, tuple(PEERS), **facts)


if __name__ == "__main__":
    main()
