"""What networks of other libraries learn by their own training, and by `ss.bootstrap`.

python benchmarks/foreign_accuracy.py --data DIR [--libraries snntorch norse ...] [--epochs 3]

The same network, weights, batches, loss and optimizer for both: the first 20,000 training images of
MNIST, Adam, batch 128; nothing is tuned. Its own training runs the network as its library does,
through all time steps; bootstrap samples two batches in each epoch, and trains the ANN on the
others; `--snn-epochs` has so many epochs at the end run as an SNN. Both are tested as SNNs by the
library's own code, on the test images. Three seeds; the two take turns, so that a machine that
slows down slows both. Seconds: building and training. Prints a Markdown table, mean and range.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import norse.torch as norse
import snntorch
import torch
from accuracy import spread
from foreign import norse_logits, sinabs_logits, spikingjelly_logits
from sinabs.activation import SingleSpike
from sinabs.layers import IAFSqueeze
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn
from torch.nn import functional as F

import spikestrap as ss
from spikestrap.train import Arrays, mnist

IMAGES, BATCH = 20_000, 128
COLUMNS = ("network", "T", "its own training, %", "bootstrap, %", "seconds", "bootstrap's", "ratio")


class Loop(nn.Module):
    """After snnTorch's tutorial 5, half as wide; all spikes (T, N, 10)."""

    def __init__(self, time_steps: int) -> None:
        super().__init__()
        self.num_steps = time_steps
        self.fc1, self.lif1 = nn.Linear(784, 500), snntorch.Leaky(beta=0.95)
        self.fc2, self.lif2 = nn.Linear(500, 10), snntorch.Leaky(beta=0.95)

    def forward(self, x: Tensor) -> Tensor:
        first, second, spikes = self.lif1.init_leaky(), self.lif2.init_leaky(), []
        for _ in range(self.num_steps):
            hidden, first = self.lif1(self.fc1(x.flatten(1)), first)
            output, second = self.lif2(self.fc2(hidden), second)
            spikes.append(output)
        return torch.stack(spikes)


def spikingjelly_cnn(time_steps: int) -> nn.Module:
    """After its example for Fashion-MNIST, smaller, and pooled by the average."""

    def node() -> nn.Module:
        return neuron.IFNode(surrogate_function=surrogate.ATan())

    layers: list[nn.Module] = []
    for channels in (1, 16):
        conv = layer.Conv2d(channels, 16, 3, padding=1, bias=False)
        layers += [conv, layer.BatchNorm2d(16), node(), layer.AvgPool2d(2)]
    layers += [layer.Flatten(), layer.Linear(16 * 7 * 7, 128, bias=False), node()]
    net = nn.Sequential(*layers, layer.Linear(128, 10, bias=False), node())
    functional.set_step_mode(net, "m")
    return net


def norse_mlp(time_steps: int) -> nn.Module:
    hidden = [nn.Linear(784, 256), norse.LIFCell(), nn.Linear(256, 256), norse.LIFCell()]
    return norse.SequentialState(nn.Flatten(), *hidden, nn.Linear(256, 10))


def sinabs_cnn(time_steps: int) -> nn.Module:
    """With at most one spike a step; by default sinabs has several."""

    def iaf() -> nn.Module:
        return IAFSqueeze(num_timesteps=time_steps, spike_fn=SingleSpike)

    convs = [nn.Conv2d(1, 8, 3, padding=1), iaf(), nn.AvgPool2d(2)]
    convs += [nn.Conv2d(8, 16, 3, padding=1), iaf(), nn.AvgPool2d(2)]
    return nn.Sequential(*convs, nn.Flatten(), nn.Linear(784, 64), iaf(), nn.Linear(64, 10))


def by_count(rates: Tensor, labels: Tensor, time_steps: int) -> Tensor:
    """Cross entropy of the numbers of spikes, snnTorch's `ce_count_loss`."""
    return F.cross_entropy(time_steps * rates, labels)


def by_distance(rates: Tensor, labels: Tensor, time_steps: int) -> Tensor:
    """Mean squared error of the rates, as in SpikingJelly's examples."""
    return F.mse_loss(rates, F.one_hot(labels, 10).to(rates))


def by_logits(logits: Tensor, labels: Tensor, time_steps: int) -> Tensor:
    return F.cross_entropy(logits, labels)


class Case(NamedTuple):
    name: str
    make: Callable[[int], nn.Module]
    run: Callable[[Any, Tensor, int], Tensor]
    time_steps: int
    loss: Callable[[Tensor, Tensor, int], Tensor]
    learning_rate: float = 1e-3


CASES = {
    "snntorch": Case(
        "snnTorch, 784-500-10, Leaky", Loop, lambda net, x, _: net(x).mean(0), 25, by_count, 5e-4
    ),
    "spikingjelly": Case(
        "SpikingJelly, CNN, IFNode", spikingjelly_cnn, spikingjelly_logits, 4, by_distance
    ),
    "norse": Case("Norse, 784-256-256-10, LIFCell", norse_mlp, norse_logits, 32, by_logits),
    "sinabs": Case("sinabs, CNN, IAFSqueeze", sinabs_cnn, sinabs_logits, 8, by_logits),
}


def trained(
    case: Case, bootstrap: bool, part: Arrays, epochs: int, snn_epochs: int, seed: int
) -> nn.Module:
    scheduler = ss.Scheduler(num_sample_iter=2, sample_period=1, snn_from=epochs - snn_epochs)
    torch.manual_seed(seed)
    model = case.make(case.time_steps)
    net = ss.bootstrap(model, time_steps=case.time_steps) if bootstrap else None
    optimizer = torch.optim.Adam(model.parameters(), lr=case.learning_rate)
    for epoch in range(epochs):
        for i, at in enumerate(torch.randperm(len(part)).split(BATCH)):
            x, labels = part.x[at], part.y[at]
            if net is None:
                output = case.run(model, x, case.time_steps)
            else:
                mode = scheduler.mode(epoch, i)
                if mode.base_mode is ss.Mode.SAMPLE:
                    with torch.no_grad():
                        net(x, mode)
                    continue
                output = net(x, mode)
            optimizer.zero_grad()
            case.loss(output, labels, case.time_steps).backward()
            optimizer.step()
    return net.unwrap() if net is not None else model


@torch.no_grad()
def accuracy(case: Case, model: nn.Module, part: Arrays) -> float:
    """In percent, of the SNN as its library runs it."""
    model.eval()
    outputs = [case.run(model, x, case.time_steps) for x in part.x.split(500)]
    return 100 * (torch.cat(outputs).argmax(1) == part.y).float().mean().item()


def main() -> None:
    warnings.simplefilter("ignore", ss.SpikestrapWarning)  # layers that are silent at first
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--libraries", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--snn-epochs", type=int, default=0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    splits = mnist(options.data)
    part = Arrays(splits.train.x[:IMAGES], splits.train.y[:IMAGES])
    print("| " + " | ".join(COLUMNS) + " |")
    print("|" + "---|" * len(COLUMNS), flush=True)
    for case in (CASES[name] for name in options.libraries):
        reached: dict[bool, list[float]] = {False: [], True: []}
        seconds: dict[bool, list[float]] = {False: [], True: []}
        few = Arrays(part.x[: 4 * BATCH], part.y[: 4 * BATCH])
        for bootstrap in (False, True):  # compiles, and warms the libraries up
            trained(case, bootstrap, few, 1, 0, 0)
        for seed in options.seeds:
            for bootstrap in (False, True):
                start = time.perf_counter()
                model = trained(case, bootstrap, part, options.epochs, options.snn_epochs, seed)
                seconds[bootstrap].append(time.perf_counter() - start)
                reached[bootstrap].append(accuracy(case, model, splits.test))
        times = [own / ours for own, ours in zip(*seconds.values(), strict=True)]
        cells = [case.name, str(case.time_steps)]
        cells += [spread(reached[way], 2) for way in (False, True)]
        cells += [spread(seconds[way], 0) for way in (False, True)]
        print(f"| {' | '.join(cells)} | {spread(times, 1)} |", flush=True)


if __name__ == "__main__":
    main()
