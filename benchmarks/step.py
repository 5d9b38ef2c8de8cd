"""One training step of an MLP 784-512-512-10 on static inputs, batch 256, T = 16.

A step is forward, cross entropy, backward and Adam. Ours in ANN mode and in SAMPLE mode is
held against the same network with ReLU in plain torch; ours in SNN mode against direct
training in snnTorch and SpikingJelly, written as their tutorials write it: the input is
repeated, so the first layer is computed T times. `..._first_layer_once` are the same two with
that layer computed once, as ours does it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import snntorch
import torch
from common import ALPHA, LEAK, LIF, THRESHOLD, arguments, check_spikes, in_turns, ratio, report
from snntorch.surrogate import atan
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn
from torch.nn import functional as F

import spikestrap as ss

# Products of other shapes sum in another order, which now and then tips a membrane.
ALLOWED = 1e-3
# Small, so that the networks stay what was checked while they are timed.
LEARNING_RATE = 1e-4


def relu_network(widths: tuple[int, ...]) -> nn.Sequential:
    a, b, c, d = widths
    return nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Linear(b, c), nn.ReLU(), nn.Linear(c, d))


def our_network(widths: tuple[int, ...], time_steps: int) -> ss.Network:
    a, b, c, d = widths
    return ss.Network(
        ss.block.lif.Dense(LIF, a, b, bias=True),
        ss.block.lif.Dense(LIF, b, c, bias=True),
        ss.block.lif.Affine(LIF, c, d),
        time_steps=time_steps,
    )


class SNNTorchNetwork(nn.Module):
    """After snnTorch's tutorial 5, with the logits averaged over time."""

    def __init__(self, widths: tuple[int, ...], time_steps: int, first_layer_once: bool) -> None:
        super().__init__()
        a, b, c, d = widths
        self.fc1, self.lif1 = nn.Linear(a, b), self._leaky()
        self.fc2, self.lif2 = nn.Linear(b, c), self._leaky()
        self.fc3 = nn.Linear(c, d)
        self.time_steps, self.first_layer_once = time_steps, first_layer_once

    @staticmethod
    def _leaky() -> Any:
        return snntorch.Leaky(
            beta=1 - LEAK, threshold=THRESHOLD, reset_mechanism="zero", spike_grad=atan(ALPHA)
        )

    def spikes_and_logits(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        membrane1, membrane2 = self.lif1.reset_mem(), self.lif2.reset_mem()
        spikes, logits = [], []
        current = self.fc1(x)
        for t in range(self.time_steps):
            if t and not self.first_layer_once:
                current = self.fc1(x)
            spike, membrane1 = self.lif1(current, membrane1)
            spike, membrane2 = self.lif2(self.fc2(spike), membrane2)
            spikes.append(spike)
            logits.append(self.fc3(spike))
        return spikes, torch.stack(logits).mean(0)

    def forward(self, x: Tensor) -> Tensor:
        return self.spikes_and_logits(x)[1]


class SpikingJellyNetwork(nn.Module):
    """After SpikingJelly's tutorials in multi-step mode: a sequence in, the mean rate out."""

    def __init__(self, widths: tuple[int, ...], time_steps: int, first_layer_once: bool) -> None:
        super().__init__()
        a, b, c, d = widths
        self.first = layer.Linear(a, b)
        self.hidden = nn.Sequential(self._lif(), layer.Linear(b, c), self._lif())
        self.last = layer.Linear(c, d)
        functional.set_step_mode(self, "m")
        self.time_steps, self.first_layer_once = time_steps, first_layer_once

    @staticmethod
    def _lif() -> Any:
        return neuron.LIFNode(
            tau=1 / LEAK,
            decay_input=False,
            v_threshold=THRESHOLD,
            v_reset=0.0,
            surrogate_function=surrogate.ATan(ALPHA),
            detach_reset=True,
        )

    def spikes_and_logits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        functional.reset_net(self)
        if self.first_layer_once:
            current = self.first(x).expand(self.time_steps, -1, -1)
        else:
            current = self.first(x.unsqueeze(0).repeat(self.time_steps, 1, 1))
        spikes = self.hidden(current)
        return spikes, self.last(spikes).mean(0)

    def forward(self, x: Tensor) -> Tensor:
        return self.spikes_and_logits(x)[1]


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """The networks name their weights differently, but have them in the same order."""
    with torch.no_grad():
        for old, new in zip(source.parameters(), target.parameters(), strict=True):
            new.copy_(old)


def check_direct(ours: ss.Network, peers: dict[str, Any], x: Tensor, time_steps: int) -> float:
    """Exits unless the peers spike as ours does; the second layer's share of spikes."""
    with torch.no_grad():
        spikes = ours.blocks[1](ours.blocks[0](ss.hold(x, time_steps)))
        logits = ours(x)
        for name, peer in peers.items():
            their_spikes, their_logits = peer.spikes_and_logits(x)
            their_spikes = torch.stack(tuple(their_spikes))
            check_spikes(name, their_spikes, spikes, ALLOWED)
            if (their_logits - logits).abs().mean() > ALLOWED:
                sys.exit(f"{name}: logits differ from ours")
    return spikes.mean().item()


def check_ann(ours: ss.Network, x: Tensor) -> None:
    """Exits unless a block's rates are those of its curve, looked up by numpy."""
    block: Any = ours.blocks[0]
    with torch.no_grad():
        z = block.synapse(x).numpy()
        rates = block(x, mode=ss.Mode.ANN).numpy()
    curve = block.unit.sampler
    grid = curve.origin.numpy() + curve.width.numpy() * np.arange(curve.values.shape[1])
    expected = np.interp(z, grid, curve.values[0].numpy())
    if curve.rounding:
        expected = np.round(expected * curve.time_steps) / curve.time_steps
    # Where the curve lies half-way between two rates, either is right.
    if np.mean(np.abs(rates - expected) > 1e-5) > ALLOWED:
        sys.exit("spikestrap: rates in ANN mode are not those of the curve")


def training_step(
    network: nn.Module, forward: Callable[[Tensor], Tensor], x: Tensor, labels: Tensor
) -> Callable[[], None]:
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)

    def step() -> None:
        loss = F.cross_entropy(forward(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def main() -> None:
    options = arguments(__doc__)
    widths, batch, time_steps = (784, 512, 512, 10), 256, 16
    if options.quick:
        widths, batch, time_steps = (64, 32, 32, 10), 8, 4
    torch.manual_seed(0)
    # Twice the usual range of pixels: torch's initial weights make for few spikes.
    x, labels = 2 * torch.rand(batch, widths[0]), torch.randint(widths[-1], (batch,))

    networks: dict[str, Any] = {"relu": relu_network(widths)}
    for name in ("ann", "sample", "snn"):
        networks[f"spikestrap {name}"] = our_network(widths, time_steps)
    for suffix, once in (("", False), (" first layer once", True)):
        networks[f"snntorch{suffix}"] = SNNTorchNetwork(widths, time_steps, once)
        networks[f"spikingjelly{suffix}"] = SpikingJellyNetwork(widths, time_steps, once)
    for network in networks.values():
        copy_weights(networks["relu"], network)

    ours = networks["spikestrap ann"]
    ours(x, ss.Mode.SAMPLE)
    ours(x, ss.Mode.FIT)
    check_ann(ours, x)
    peers = {name: net for name, net in networks.items() if hasattr(net, "spikes_and_logits")}
    activity = check_direct(ours, peers, x, time_steps)

    contenders = {}
    for name, network in networks.items():
        forward = network
        if name.startswith("spikestrap"):
            forward = partial(network, mode=ss.Mode(name.removeprefix("spikestrap ")))
        contenders[name] = training_step(network, forward, x, labels)

    seconds = in_turns(contenders, options.rounds)
    direct = seconds["spikestrap snn"]
    ratios = {
        "ann_over_relu": ratio(seconds["spikestrap ann"], seconds["relu"]),
        "sample_over_relu": ratio(seconds["spikestrap sample"], seconds["relu"]),
        "direct_over_relu": ratio(direct, seconds["relu"]),
    }
    for name in peers:
        ratios[f"direct_over_{name.replace(' ', '_')}"] = ratio(direct, seconds[name])
    sizes = {"widths": widths, "batch": batch, "time_steps": time_steps}
    report(options, ratios, seconds, ("spikingjelly", "snntorch"), **sizes, activity=activity)


if __name__ == "__main__":
    main()
