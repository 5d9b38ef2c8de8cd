"""Fewer spikes for little accuracy: rates are differentiable, so the loss may ask for low ones."""

import torch
import torch.nn.functional as F
from common import accuracies, data, figure, mlp, options, save

import spikestrap as ss
from spikestrap.train import Splits

NEURON = {"threshold": 1.0, "reset": "subtract", "v_init": 0.5}
PRICES = (0.0, 0.1, 0.3, 1.0, 3.0)


def train(net: ss.Network, splits: Splits, price: float, epochs: int) -> None:
    """The usual loop; `price` is what one spike a neuron and step adds to the loss."""
    rates: list[torch.Tensor] = []
    hooks = [
        unit.register_forward_hook(lambda unit, inputs, output: rates.append(output.mean()))
        for _, unit in ss.unit.units_of(net)
    ]
    scheduler = ss.Scheduler(num_sample_iter=3, sample_period=4)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    for epoch in range(epochs):
        order = torch.randperm(len(splits.train)).split(64)
        for i, batch in enumerate(order):
            rates.clear()
            logits = net(splits.train.x[batch], scheduler.mode(epoch, i))
            loss = F.cross_entropy(logits, splits.train.y[batch])
            (loss + price * torch.stack(rates).mean()).backward()
            optimizer.step()
            optimizer.zero_grad()
    for hook in hooks:
        hook.remove()


def main() -> None:
    chosen = options(__doc__)
    splits = data(chosen.quick)
    found = []
    for price in PRICES[:2] if chosen.quick else PRICES:
        torch.manual_seed(0)
        net = mlp(ss.block.integrate_fire, NEURON, time_steps=4)
        train(net, splits, price, epochs=2 if chosen.quick else 20)
        snn, _ = accuracies(net, splits)
        cost = ss.cost(net, splits.test.x)
        found.append((snn, cost.synaptic_operations, cost.spikes))
        print(f"price {price}: SNN {snn:.1f} %, {cost.spikes:.0f} spikes an image")

    accuracy, operations, spikes = zip(*found, strict=True)
    made, ((left, right),) = figure(2, sharey=True)
    left.plot(spikes, accuracy, "o-")
    left.set(xlabel="spikes an image", ylabel="SNN test accuracy (%)")
    right.plot(operations, accuracy, "o-", color="C2")
    right.axvline(cost.ann_macs, color="0.6", linestyle=":", label="multiplications of the ANN")
    right.legend(fontsize="small")
    right.set(xlabel="synaptic operations an image")
    for price, x, y in zip(PRICES, spikes, accuracy, strict=False):
        left.annotate(f" {price:g}", (x, y), fontsize="small")
    save(made, chosen.out, __file__)


if __name__ == "__main__":
    main()
