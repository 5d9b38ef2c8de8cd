"""The benchmarks' networks, an MLP and a CNN: ours, in plain torch, and as others have them.

All have the neuron of `common` and, after `copy_weights`, the same weights. The others' are written
as their documentation has it: SpikingJelly in multi-step mode, snnTorch and Norse step by step. All
repeat a static input, so that the first layer is computed T times; with `first_layer_once` it is
computed once, as in ours.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

import norse.torch as norse
import snntorch
import torch
from common import ALPHA, LEAK, LIF, THRESHOLD, check_spikes
from snntorch.surrogate import atan
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn
from torch.nn import functional as F

import spikestrap as ss

# Products of other shapes sum in another order, which now and then tips a membrane.
ALLOWED = 1e-3
# Small, so that the networks stay what was checked while they are timed.
LEARNING_RATE = 1e-4
# Times torch's initial weights, so that spikes reach the last layer of a CNN, or at T = 2.
GAIN = 3.0

Neurons = Callable[[], nn.Module]


class Architecture(NamedTuple):
    """layers: as other libraries write it, by what makes a neuron. ours: by T, for static inputs.

    shape: that of one input.
    """

    layers: Callable[[Neurons], list[nn.Module]]
    ours: Callable[[int], ss.Network]
    shape: tuple[int, ...]


def mlp(widths: tuple[int, ...]) -> Architecture:
    a, b, c, d = widths

    def layers(neurons: Neurons) -> list[nn.Module]:
        return [nn.Linear(a, b), neurons(), nn.Linear(b, c), neurons(), nn.Linear(c, d)]

    def ours(time_steps: int) -> ss.Network:
        return ss.Network(
            ss.block.lif.Dense(LIF, a, b, bias=True),
            ss.block.lif.Dense(LIF, b, c, bias=True),
            ss.block.lif.Affine(LIF, c, d),
            time_steps=time_steps,
        )

    return Architecture(layers, ours, (a,))


def cnn(size: int, widths: tuple[int, ...]) -> Architecture:
    """For images of size x size."""
    one, two, hidden = widths

    def layers(neurons: Neurons) -> list[nn.Module]:
        return [
            nn.Conv2d(1, one, 3, padding=1),
            neurons(),
            nn.AvgPool2d(2),
            nn.Conv2d(one, two, 3, padding=1),
            neurons(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(two * (size // 4) ** 2, hidden),
            neurons(),
            nn.Linear(hidden, 10),
        ]

    def ours(time_steps: int) -> ss.Network:
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

    return Architecture(layers, ours, (1, size, size))


class SNNTorchNetwork(nn.Module):
    """Step by step, after snnTorch's tutorials 5 and 6; logits are averaged over time."""

    def __init__(
        self, architecture: Architecture, time_steps: int, first_layer_once: bool = False
    ) -> None:
        super().__init__()
        first, *hidden, last = architecture.layers(self._leaky)
        self.first, self.hidden, self.last = first, nn.Sequential(*hidden), last
        self.time_steps, self.first_layer_once = time_steps, first_layer_once

    @staticmethod
    def _leaky() -> nn.Module:
        return snntorch.Leaky(
            beta=1 - LEAK,
            threshold=THRESHOLD,
            reset_mechanism="zero",
            spike_grad=atan(ALPHA),
            init_hidden=True,
        )

    def forward(self, x: Tensor) -> Tensor:
        for module in self.hidden:
            if isinstance(module, snntorch.Leaky):
                module.reset_mem()
        currents = _at_each_step(self.first, x, self.time_steps, self.first_layer_once)
        return torch.stack([self.last(self.hidden(current)) for current in currents]).mean(0)


def spikingjelly_neuron() -> nn.Module:
    return neuron.LIFNode(
        tau=1 / LEAK,
        decay_input=False,
        v_threshold=THRESHOLD,
        v_reset=0.0,
        surrogate_function=surrogate.ATan(ALPHA),
        detach_reset=True,
        step_mode="m",
    )


def in_containers(layers: list[nn.Module]) -> list[nn.Module]:
    """SpikingJelly's own container folds time into the batch for what has no neuron in it."""
    folded: list[nn.Module] = []
    for fires, group in groupby(layers, lambda module: isinstance(module, neuron.LIFNode)):
        together = list(group)
        folded += together if fires else [layer.SeqToANNContainer(*together)]
    return folded


class SpikingJellyNetwork(nn.Module):
    """In multi-step mode, after SpikingJelly's tutorials: a sequence in, the mean rate out."""

    def __init__(
        self, architecture: Architecture, time_steps: int, first_layer_once: bool = False
    ) -> None:
        super().__init__()
        first, *hidden, last = in_containers(architecture.layers(spikingjelly_neuron))
        self.first, self.hidden, self.last = first, nn.Sequential(*hidden), last
        self.time_steps, self.first_layer_once = time_steps, first_layer_once

    def forward(self, x: Tensor) -> Tensor:
        functional.reset_net(self)
        x = x.unsqueeze(0)
        if self.first_layer_once:
            current = self.first(x)
            current = current.expand(self.time_steps, *current.shape[1:])
        else:
            current = self.first(x.repeat(self.time_steps, *[1] * (x.ndim - 1)))
        return self.last(self.hidden(current)).mean(0)


def norse_neuron() -> nn.Module:
    # v <- v + dt / tau_mem (x - v): as if inputs were scaled by the leak, so the threshold is.
    return norse.LIFBoxCell(
        norse.LIFBoxParameters(
            tau_mem_inv=torch.tensor(LEAK * 1000), v_th=torch.tensor(LEAK * THRESHOLD)
        )
    )


class NorseNetwork(nn.Module):
    """Step by step, after Norse's documentation: a SequentialState, which carries the state.

    Norse has no arctan, so its gradients are those of a surrogate of its own.
    """

    def __init__(
        self, architecture: Architecture, time_steps: int, first_layer_once: bool = False
    ) -> None:
        super().__init__()
        first, *hidden, last = architecture.layers(norse_neuron)
        self.first, self.hidden, self.last = first, norse.SequentialState(*hidden), last
        self.time_steps, self.first_layer_once = time_steps, first_layer_once

    def forward(self, x: Tensor) -> Tensor:
        state, logits = None, []
        for current in _at_each_step(self.first, x, self.time_steps, self.first_layer_once):
            spikes, state = self.hidden(current, state)
            logits.append(self.last(spikes))
        return torch.stack(logits).mean(0)


PEERS = {
    "snntorch": SNNTorchNetwork,
    "spikingjelly": SpikingJellyNetwork,
    "norse": NorseNetwork,
}


def _at_each_step(first: nn.Module, x: Tensor, time_steps: int, once: bool) -> Iterator[Tensor]:
    """What the first layer makes of a static input, step by step."""
    current = first(x)
    yield current
    for _ in range(1, time_steps):
        if not once:
            current = first(x)
        yield current


def relu_network(architecture: Architecture, gain: float = 1.0) -> nn.Sequential:
    """gain: times torch's initial weights, with which few spikes reach the deeper layers."""
    network = nn.Sequential(*architecture.layers(nn.ReLU))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(gain)
    return network


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """The networks name their weights differently, but have them in the same order."""
    with torch.no_grad():
        for old, new in zip(source.parameters(), target.parameters(), strict=True):
            new.copy_(old)


def fit_curves(network: ss.Network, x: Tensor) -> None:
    """Readies a network for ANN mode."""
    for mode in (ss.Mode.SAMPLE, ss.Mode.FIT):
        network(x, mode)


def check_direct(ours: ss.Network, peers: Mapping[str, Any], x: Tensor) -> float:
    """Exits unless the peers spike as ours does; the last hidden layer's share of spikes."""
    spikes, logits = _spikes_and_logits(ours, ours.blocks[-1], x)
    for name, peer in peers.items():
        their_spikes, their_logits = _spikes_and_logits(peer, peer.last, x)
        check_spikes(name, their_spikes, spikes, ALLOWED)
        if (their_logits - logits).abs().mean() > ALLOWED:
            sys.exit(f"{name}: logits differ from ours")
    return spikes.mean().item()


def _spikes_and_logits(network: nn.Module, last: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Spikes (T, N, C) that reach the last layer, whether step by step or at once; and logits."""
    seen: list[Tensor] = []
    handle = last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        logits = network(x)
    handle.remove()
    return torch.cat([spikes.view(-1, *spikes.shape[-2:]) for spikes in seen]), logits


def training_step(
    network: nn.Module, forward: Callable[[Tensor], Tensor], x: Tensor, labels: Tensor
) -> Callable[[], None]:
    """Forward, cross entropy, backward and Adam."""
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)

    def step() -> None:
        loss = F.cross_entropy(forward(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def our_step(network: ss.Network, mode: str, x: Tensor, labels: Tensor) -> Callable[[], None]:
    return training_step(network, partial(network, mode=ss.Mode(mode)), x, labels)
