"""One training step of an MLP 784-512-512-10 on static inputs, batch 256, T = 16.

A step is forward, cross entropy, backward and Adam. Ours in ANN mode and in SAMPLE mode is
held against the same network with ReLU in plain torch; ours in SNN mode against direct
training in snnTorch, SpikingJelly and Norse, written as their tutorials write it: the input is
repeated, so the first layer is computed T times. `..._first_layer_once` are the same with
that layer computed once, as ours does it.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from typing import Any

import numpy as np
import torch
from common import arguments, in_turns, ratio, report
from networks import (
    ALLOWED,
    PEERS,
    Architecture,
    check_direct,
    copy_weights,
    fit_curves,
    mlp,
    our_step,
    relu_network,
    training_step,
)
from torch import Tensor

import spikestrap as ss

MODES = ("ann", "sample", "snn")


def check_ann(ours: ss.Network, x: Tensor) -> None:
    """Exits unless a block's rates are those of its curve, looked up by numpy."""
    block: Any = ours.blocks[0]
    with torch.no_grad():
        z = block.synapse(x).numpy()
        rates = block(x, mode=ss.Mode.ANN).numpy()
    curve = block.unit.sampler
    expected = np.empty_like(z)
    for k in range(curve.channels):
        part = (slice(None), k) if curve.channels > 1 else ()
        knots = curve.values[k].numpy()
        grid = curve.origin[k].item() + curve.width[k].item() * np.arange(len(knots))
        expected[part] = np.interp(z[part], grid, knots)
    if curve.rounding:
        expected = np.round(expected * curve.time_steps) / curve.time_steps
    # Where the curve lies half-way between two rates, either is right.
    if np.mean(np.abs(rates - expected) > 1e-5) > ALLOWED:
        sys.exit("spikestrap: rates in ANN mode are not those of the curve")


def compare(
    options: Namespace,
    architecture: Architecture,
    x: Tensor,
    time_steps: int,
    gain: float,
    **facts: Any,
) -> None:
    """Times a training step of all contenders on inputs x, and prints what `report` does.

    gain: see `relu_network`.
    """
    labels = torch.randint(10, (len(x),))
    relu = relu_network(architecture, gain)
    ours = {mode: architecture.ours(time_steps) for mode in MODES}
    peers = {
        f"{name}{suffix}": make(architecture, time_steps, once)
        for suffix, once in (("", False), (" first layer once", True))
        for name, make in PEERS.items()
    }
    for network in (*ours.values(), *peers.values()):
        copy_weights(relu, network)
    fit_curves(ours["ann"], x)
    check_ann(ours["ann"], x)
    activity = check_direct(ours["snn"], peers, x)

    contenders = {"relu": training_step(relu, relu, x, labels)}
    for mode, network in ours.items():
        contenders[f"spikestrap {mode}"] = our_step(network, mode, x, labels)
    for name, peer in peers.items():
        contenders[name] = training_step(peer, peer, x, labels)

    seconds = in_turns(contenders, options.rounds)
    direct = seconds["spikestrap snn"]
    ratios = {
        "ann_over_relu": ratio(seconds["spikestrap ann"], seconds["relu"]),
        "sample_over_relu": ratio(seconds["spikestrap sample"], seconds["relu"]),
        "direct_over_relu": ratio(direct, seconds["relu"]),
    }
    for name in peers:
        ratios[f"direct_over_{name.replace(' ', '_')}"] = ratio(direct, seconds[name])
    facts |= {"batch": len(x), "time_steps": time_steps, "activity": activity}
    report(options, ratios, seconds, tuple(PEERS), **facts)


def main() -> None:
    options = arguments(__doc__)
    widths, batch, time_steps = (784, 512, 512, 10), 256, 16
    if options.quick:
        widths, batch, time_steps = (64, 32, 32, 10), 8, 4
    torch.manual_seed(0)
    # Twice the usual range of pixels: torch's initial weights make for few spikes.
    x = 2 * torch.rand(batch, widths[0])
    compare(options, mlp(widths), x, time_steps, gain=1.0, widths=widths)


if __name__ == "__main__":
    main()
