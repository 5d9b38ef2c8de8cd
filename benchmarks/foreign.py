"""One training step of a small CNN written with another library: by BPTT, and as an ANN.

1-16-32 channels, 3 x 3, average pooling, 128 hidden neurons, on static images 28 x 28, batch
32, T = 16. A step is forward, cross entropy, backward and Adam. Each library trains its own
network in its own way, through all steps; `ss.bootstrap` trains the same one in ANN mode, on
curves that were sampled and fitted before. `speedup_over_...` is the one over the other.
SpikingJelly runs in multi-step mode, sinabs with time folded into the batch, snnTorch and
Norse step by step. `relu_over_...` is plain torch over ours, with ReLU for the neurons.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import norse.torch as norse
import sinabs
import sinabs.layers as sl
import snntorch
import torch
from common import LEAK, THRESHOLD, arguments, in_turns, ratio, report
from networks import ALLOWED, cnn, in_containers, norse_neuron, relu_network, training_step
from sinabs.activation import SingleSpike
from spikingjelly.activation_based import functional, neuron
from torch import Tensor, nn

import spikestrap as ss

PEERS = ("snntorch", "spikingjelly", "norse", "sinabs")


def snntorch_network(size: int, widths: tuple[int, ...], time_steps: int) -> nn.Module:
    def leaky() -> nn.Module:
        return snntorch.Leaky(beta=1 - LEAK, threshold=THRESHOLD, init_hidden=True)

    return nn.Sequential(*cnn(size, widths).layers(leaky))


def snntorch_logits(model: Any, x: Tensor, time_steps: int) -> Tensor:
    for module in model:
        if isinstance(module, snntorch.Leaky):
            module.reset_mem()
    return torch.stack([model(x) for _ in range(time_steps)]).mean(0)


def spikingjelly_network(size: int, widths: tuple[int, ...], time_steps: int) -> nn.Module:
    def node() -> nn.Module:
        return neuron.LIFNode(
            tau=1 / LEAK, decay_input=False, v_threshold=THRESHOLD, v_reset=None, step_mode="m"
        )

    return nn.Sequential(*in_containers(cnn(size, widths).layers(node)))


def spikingjelly_logits(model: Any, x: Tensor, time_steps: int) -> Tensor:
    functional.reset_net(model)
    return model(x.unsqueeze(0).repeat(time_steps, 1, 1, 1, 1)).mean(0)


def norse_network(size: int, widths: tuple[int, ...], time_steps: int) -> nn.Module:
    return norse.SequentialState(*cnn(size, widths).layers(norse_neuron))


def norse_logits(model: Any, x: Tensor, time_steps: int) -> Tensor:
    state, total = None, torch.zeros(())
    for _ in range(time_steps):
        output, state = model(x, state)
        total = total + output
    return total / time_steps


def sinabs_network(size: int, widths: tuple[int, ...], time_steps: int) -> nn.Module:
    def iaf() -> nn.Module:
        return sl.IAFSqueeze(
            num_timesteps=time_steps,
            spike_fn=SingleSpike,
            spike_threshold=torch.tensor(THRESHOLD),
        )

    return nn.Sequential(*cnn(size, widths).layers(iaf))


def sinabs_logits(model: Any, x: Tensor, time_steps: int) -> Tensor:
    sinabs.utils.reset_states(model)
    output = model(x.repeat_interleave(time_steps, 0))
    return output.unflatten(0, (-1, time_steps)).mean(1)


def check(name: str, net: Any, logits: Tensor, x: Tensor) -> list[float]:
    """Exits unless ours runs as the library does; the event rate of each layer."""
    with torch.no_grad():
        if (net(x) - logits).abs().mean() > ALLOWED:
            sys.exit(f"{name}: logits of SNN mode are not the library's own")
        net(x, ss.Mode.SAMPLE)
        net(x, ss.Mode.FIT)
    return [round(found.event_rate, 3) for found in ss.diagnose(net, [x])]


def main() -> None:
    options = arguments(__doc__)
    size, widths, batch, time_steps = 28, (16, 32, 128), 32, 16
    if options.quick:
        size, widths, batch, time_steps = 8, (4, 4, 16), 8, 4
    torch.manual_seed(0)
    # Four times the usual range of pixels: torch's initial weights make for few spikes.
    x, labels = 4 * torch.rand(batch, 1, size, size), torch.randint(10, (batch,))

    contenders: dict[str, Callable[[], object]] = {}
    relu = relu_network(cnn(size, widths))
    contenders["relu"] = training_step(relu, relu, x, labels)
    activity = {}
    for name in PEERS:
        make, run = globals()[f"{name}_network"], globals()[f"{name}_logits"]
        torch.manual_seed(0)
        direct = make(size, widths, time_steps)
        torch.manual_seed(0)
        net: Any = ss.bootstrap(make(size, widths, time_steps), time_steps=time_steps)
        with torch.no_grad():
            activity[name] = check(name, net, run(direct, x, time_steps), x)

        def by_bptt(x: Tensor, run: Any = run, direct: Any = direct) -> Tensor:
            return run(direct, x, time_steps)

        def as_ann(x: Tensor, net: Any = net) -> Tensor:
            return net(x, ss.Mode.ANN)

        contenders[name] = training_step(direct, by_bptt, x, labels)
        contenders[f"spikestrap {name}"] = training_step(net, as_ann, x, labels)

    seconds = in_turns(contenders, options.rounds)
    ours = {name: seconds[f"spikestrap {name}"] for name in PEERS}
    ratios = {f"speedup_over_{name}": ratio(seconds[name], ours[name]) for name in PEERS}
    ratios |= {f"relu_over_{name}": ratio(seconds["relu"], ours[name]) for name in PEERS}
    sizes = {"size": size, "widths": widths, "batch": batch, "time_steps": time_steps}
    report(options, ratios, seconds, PEERS, **sizes, activity=activity)


if __name__ == "__main__":
    main()
