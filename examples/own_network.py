"""A residual network with a forward of one's own: blocks are torch modules.

python examples/own_network.py [EPOCHS]
"""

import sys

import torch
import torch.nn.functional as F
from torch import nn

import spikestrap as ss
from spikestrap.train import digits

NEURON = dict(threshold=1.0, voltage_decay=0.0, reset="subtract", v_init=0.5, norm="mean_only")


class Residual(nn.Module):
    """Two convolutions, and their input added to what they give."""

    def __init__(self, channels):
        super().__init__()
        self.first = ss.block.cuba.Conv(NEURON, channels, channels, 3, padding=1, weight_norm=True)
        self.second = ss.block.cuba.Conv(NEURON, channels, channels, 3, padding=1, weight_norm=True)
        self.add = ss.block.Add()

    def forward(self, x, modes):
        return self.add(x, self.second(self.first(x, next(modes)), next(modes)))


class ResNet(nn.Module):
    """For images (N, 1, 8, 8)."""

    def __init__(self, channels=16, time_steps=4):
        super().__init__()
        self.time_steps = time_steps
        self.stem = ss.block.cuba.Conv(NEURON, 1, channels, 3, padding=1, weight_norm=True)
        self.stages = nn.ModuleList([Residual(channels), Residual(channels)])
        self.pool = ss.block.AvgPool(2)
        self.flatten = ss.block.Flatten()
        self.readout = ss.block.cuba.Affine(None, channels * 16, 10)

    def forward(self, x, mode):
        modes = iter(mode)  # one for each unit, in the order in which they run
        x = self.stem(ss.hold(x, self.time_steps), next(modes))
        for stage in self.stages:
            x = stage(x, modes)
        return self.readout(self.flatten(self.pool(x)))


def main(epochs):
    torch.manual_seed(0)
    data = digits()
    net = ResNet()
    scheduler = ss.Scheduler(num_sample_iter=5, sample_period=5)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    for epoch in range(epochs):
        for i, batch in enumerate(torch.randperm(len(data.train)).split(64)):
            logits = net(data.train.x[batch], scheduler.mode(epoch, i, train=True))
            loss = F.cross_entropy(logits, data.train.y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    net.eval()
    with torch.no_grad():
        for mode in (ss.Mode.SNN, ss.Mode.ANN):
            right = net(data.test.x, ss.LayerMode(mode)).argmax(1) == data.test.y
            print(f"{mode.name} test accuracy: {100 * right.float().mean():.1f} %")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
