"""What bootstrap learns where neurons are silent at first, or fall silent, against direct training.

python benchmarks/silent.py

Digits, T = 4, torch's initial weights, five seeds; test images: no epoch is chosen by any. The
classifiers have no v_init and reset to zero, so that the deeper layers start without a spike. In
the autoencoder, which trains at a high learning rate, neurons fall silent. The loss of the last row
never has enough: it asks for more spikes of a neuron that fires at every step, and for fewer of a
silent one. Prints a Markdown table, mean and range.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from accuracy import spread
from torch import Tensor
from torch.nn import functional as F

import spikestrap as ss
from spikestrap import block
from spikestrap.train import Arrays
from spikestrap.train.data import digits

TIME_STEPS, BATCH, SEEDS = 4, 64, range(5)
RESETS_TO_ZERO = {"threshold": 1.0, "reset": "zero"}
SUBTRACTS = {"threshold": 1.0, "reset": "subtract", "v_init": 0.5}

Loss = Callable[[ss.Network, Tensor, Tensor, ss.LayerMode], Tensor]


def classifier(hidden: int, spiking_readout: bool) -> ss.Network:
    """64-96-...-10, with so many hidden layers."""
    neuron, family = RESETS_TO_ZERO, block.integrate_fire
    widths = [64] + [96] * hidden
    layers = [family.Dense(neuron, a, b, bias=True) for a, b in pairwise(widths)]
    readout = family.Dense if spiking_readout else family.Affine
    return ss.Network(*layers, readout(neuron, 96, 10, bias=True), time_steps=TIME_STEPS)


def autoencoder() -> ss.Network:
    widths = (64, 32, 16, 32)
    family = block.integrate_fire
    layers = [family.Dense(SUBTRACTS, a, b, bias=True) for a, b in pairwise(widths)]
    return ss.Network(*layers, family.Affine(SUBTRACTS, 32, 64, bias=True), time_steps=TIME_STEPS)


def awake() -> ss.Network:
    dense = block.integrate_fire.Dense
    return ss.Network(
        dense(SUBTRACTS, 64, 96, bias=True, weight_scale=6**0.5),
        dense(SUBTRACTS, 96, 10, bias=True, weight_scale=6**0.5),
        time_steps=TIME_STEPS,
    )


def by_count(net: ss.Network, x: Tensor, y: Tensor, mode: ss.LayerMode) -> Tensor:
    """Cross entropy of the spikes' count."""
    return F.cross_entropy(TIME_STEPS * net(x, mode), y)


def by_output(net: ss.Network, x: Tensor, y: Tensor, mode: ss.LayerMode) -> Tensor:
    return F.cross_entropy(net(x, mode), y)


def by_distance(net: ss.Network, x: Tensor, y: Tensor, mode: ss.LayerMode) -> Tensor:
    return F.mse_loss(net(x, mode), x)


class Case(NamedTuple):
    make: Callable[[], ss.Network]
    loss: Loss
    epochs: int
    learning_rate: float
    sample_period: int


SHORT = (6, 3e-3)
CASES = {
    "64-96-96-10, spiking readout": Case(lambda: classifier(2, True), by_count, *SHORT, 2),
    "the same, sampled once": Case(lambda: classifier(2, True), by_count, *SHORT, 6),
    "the same, twelve epochs": Case(lambda: classifier(2, True), by_count, 12, 3e-3, 2),
    "64-4x96-10": Case(lambda: classifier(4, False), by_output, *SHORT, 2),
    "the same 64-4x96-10, sampled once": Case(lambda: classifier(4, False), by_output, *SHORT, 6),
    "autoencoder 64-32-16-32-64": Case(autoencoder, by_distance, 25, 1e-2, 2),
    "64-96-10, cross entropy of rates": Case(awake, by_output, 25, 3e-3, 2),
}


def trained(case: Case, direct: bool, part: Arrays, seed: int) -> ss.Network:
    torch.manual_seed(seed)
    net = case.make()
    optimizer = torch.optim.Adam(net.parameters(), lr=case.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, case.epochs)
    scheduler = ss.Scheduler(num_sample_iter=2, sample_period=case.sample_period)
    for epoch in range(case.epochs):
        for i, at in enumerate(torch.randperm(len(part)).split(BATCH)):
            x, y = part.x[at].flatten(1), part.y[at]
            mode = ss.LayerMode(ss.Mode.SNN) if direct else scheduler.mode(epoch, i)
            with torch.set_grad_enabled(mode.base_mode is not ss.Mode.SAMPLE):
                loss = case.loss(net, x, y, mode)
            if loss.requires_grad:
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        schedule.step()
    return net.eval()


@torch.no_grad()
def score(case: Case, net: ss.Network, part: Arrays) -> float:
    """Accuracy of the SNN in percent; of an autoencoder, how much of the variance it explains."""
    x = part.x.flatten(1)
    output = net(x, ss.Mode.SNN)
    if case.loss is by_distance:
        return 100 * (1 - (output - x).square().mean() / (x - x.mean(0)).square().mean()).item()
    return 100 * (output.argmax(1) == part.y).float().mean().item()


def main() -> None:
    warnings.simplefilter("ignore", ss.SpikestrapWarning)
    print("| network | bootstrap, % | direct, % |\n|---|---|---|", flush=True)
    for name, case in CASES.items():
        ends: list[list[float]] = [[], []]
        for seed in SEEDS:
            splits = digits(seed)
            for direct in (False, True):
                net = trained(case, direct, splits.train, seed)
                ends[direct].append(score(case, net, splits.test))
        print(f"| {name} | {spread(ends[0], 1)} | {spread(ends[1], 1)} |", flush=True)


if __name__ == "__main__":
    main()
