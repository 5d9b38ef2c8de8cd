"""What a crossover repairs: how far a hybrid's logits are from the SNN's, layer by layer.

Two networks of four hidden layers train as ANNs. Then 0, 1, ... layers from the input on run with
spikes, the rest on their curves. A membrane that never resets fires on and on once it is over its
threshold: when its input comes counts as much as how much comes, and no curve of the mean can know
it.
"""

from itertools import pairwise

import torch
from common import data, figure, options, save

import spikestrap as ss
from spikestrap.train import Options, fit

NEURONS = {
    "reset by subtraction": {"reset": "subtract", "v_init": 0.5},
    "no reset": {"reset": "none"},
}
LAYERS, WIDTH, EPOCHS = 4, 64, 16
CROSSOVERS = (4, 7, 10, 13)  # the epochs at which a layer crosses over


def network(neuron: dict) -> ss.Network:
    sizes = [64] + [WIDTH] * LAYERS
    hidden = [
        ss.block.integrate_fire.Dense(neuron, before, size, weight_norm=True, weight_scale=6**0.5)
        for before, size in pairwise(sizes)
    ]
    last = ss.block.integrate_fire.Affine(neuron, WIDTH, 10)
    return ss.Network(ss.block.Flatten(), *hidden, last, time_steps=4)


@torch.no_grad()
def distances(net: ss.Network, seen: torch.Tensor, unseen: torch.Tensor) -> list[float]:
    """Of the logits of hybrids with 0, 1, ... spiking layers from the SNN's, relative to them."""
    net.eval()
    net(seen, ss.Mode.SAMPLE)
    net(seen[:1], ss.Mode.FIT)
    expected = net(unseen, ss.Mode.SNN)
    hybrids = [net(unseen, ss.LayerMode(ss.Mode.ANN, layers)) for layers in range(LAYERS + 1)]
    return [((hybrid - expected).std() / expected.std()).item() for hybrid in hybrids]


def main() -> None:
    chosen = options(__doc__)
    splits = data(chosen.quick)
    made, ((modes, distance),) = figure(2)
    for name, parameters in NEURONS.items():
        torch.manual_seed(0)
        net = network({"threshold": 1.0, **parameters})
        fit(net, splits, Options(epochs=1 if chosen.quick else 15, learning_rate=3e-3))
        found = distances(net, splits.train.x, splits.test.x)
        distance.plot(range(LAYERS + 1), found, "o-", label=name)
        print(f"{name}: " + ", ".join(f"{value:.3f}" for value in found))

    draw_modes(modes)
    distance.set(
        xlabel="layers that run with spikes",
        ylabel="distance of the logits",
        xticks=range(LAYERS + 1),
        ylim=(0, None),
    )
    distance.legend(fontsize="small")
    save(made, chosen.out, __file__)


def draw_modes(axes) -> None:
    """Which layer is in which mode in a hybrid training, from the input at the bottom."""
    scheduler = ss.Scheduler(crossover_epochs=CROSSOVERS)
    late = 10_000  # an iteration after those that sample
    for epoch in range(EPOCHS):
        for layer, mode in zip(range(1, LAYERS + 1), scheduler.mode(epoch, late), strict=False):
            spiking = mode is ss.Mode.SNN
            axes.barh(layer, 1, left=epoch, color="C3" if spiking else "0.7", edgecolor="white")
    axes.plot([], [], "s", color="0.7", label="ANN")
    axes.plot([], [], "s", color="C3", label="SNN")
    axes.legend(loc="upper left", fontsize="small", ncols=2)
    axes.set(xlabel="epoch", ylabel="layer", yticks=range(1, LAYERS + 1), ylim=(0.4, LAYERS + 1.2))


if __name__ == "__main__":
    main()
