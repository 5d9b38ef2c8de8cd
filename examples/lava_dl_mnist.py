"""MNIST, written to lava-dl's bootstrap API: train, evaluate as an SNN, export to HDF5.

Two import lines tell its network, training loop and export from those of a script for lava-dl;
the images come from spikestrap's reader, and at the end it runs the file that it wrote.

    python examples/lava_dl_mnist.py --data DIR --epochs 10        # DIR holds the four IDX files
"""

import argparse
import time
from pathlib import Path

import h5py
import torch
import torch.nn.functional as F

import spikestrap
import spikestrap.lava_dl.bootstrap as bootstrap  # was: import lava.lib.dl.bootstrap as bootstrap
import spikestrap.lava_dl.slayer as slayer  # was: import lava.lib.dl.slayer as slayer
from spikestrap.train import RandomWarp, mnist
from spikestrap.train.batches import Batches

HIDDEN, TIME_STEPS = 512, 16


class Network(torch.nn.Module):
    """An MLP that sees each image for `time_steps` steps; pixels in [-1, 1]."""

    def __init__(self, pixels, classes, hidden, time_steps):
        super().__init__()
        self.time_steps = time_steps
        neuron = {
            "threshold": 1.25,
            "current_decay": 1,
            "voltage_decay": 0.03,
            "tau_grad": 1,
            "scale_grad": 1,
        }
        dense = {"weight_norm": True, "weight_scale": 2}
        self.blocks = torch.nn.ModuleList(
            [
                bootstrap.block.cuba.Input(neuron, weight=1, bias=0),
                bootstrap.block.cuba.Dense(neuron, pixels, hidden, **dense),
                bootstrap.block.cuba.Dense(neuron, hidden, hidden, **dense),
                bootstrap.block.cuba.Affine(neuron, hidden, classes, **dense),
            ]
        )

    def forward(self, x, mode):
        """Images (N, C, H, W) to (N, classes, T), or (N, classes, 1) as an ANN."""
        steps = 1 if mode.base_mode == bootstrap.Mode.ANN else self.time_steps
        x = slayer.utils.time.replicate(x, steps)
        x = x.reshape(x.shape[0], -1, steps)
        for block, m in zip(self.blocks, mode):  # noqa: B905  (modes have no end)
            x = block(x, mode=m)
        return x

    def export_hdf5(self, filename):
        """Writes the network for lava.lib.dl.netx, a group a block."""
        with h5py.File(filename, "w") as h:
            simulation = h.create_group("simulation")
            simulation["Ts"] = 1
            simulation["tSample"] = self.time_steps
            layer = h.create_group("layer")
            for i, b in enumerate(self.blocks):
                b.export_hdf5(layer.create_group(f"{i}"))


def run(net, scheduler, epoch, batches, stat, optimizer=None):
    """An epoch of training with an optimizer, else of evaluation; the predictions."""
    net.train(optimizer is not None)
    predictions = []
    for i, (x, label) in enumerate(batches):
        with torch.set_grad_enabled(net.training):
            output = net(2 * x - 1, scheduler.mode(epoch, i, net.training))
            loss = F.cross_entropy(torch.mean(output, dim=-1), label)
        if net.training:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        predictions.append(slayer.classifier.Rate.predict(output))
        stat.num_samples += len(label)
        stat.loss_sum += loss.item() * len(label)
        stat.correct_samples += torch.sum(predictions[-1] == label).item()
    return torch.cat(predictions)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="folder with MNIST's four IDX files")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--sample-period", type=int, default=1, help="epochs from curve to curve")
    parser.add_argument("--out", type=Path, default=Path("Trained"))
    options = parser.parse_args(arguments)
    return train(mnist(options.data), options)


def train(data, options):
    """Trains, exports, and returns the SNN's test accuracy and how far the export agrees."""
    torch.manual_seed(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    side = data.train.x.shape[-1]
    affine = RandomWarp(degrees=10, scale=0.05, shear=5, shift=0.05 * side)
    train_loader = Batches(data.train, options.batch_size, affine, options.seed)
    test_loader = list(zip(data.test.x.split(500), data.test.y.split(500), strict=True))

    net = Network(data.train.x[0].numel(), data.classes, HIDDEN, TIME_STEPS)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.002)
    scheduler = bootstrap.routine.Scheduler(10, options.sample_period)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs)
    stats = slayer.utils.LearningStats()

    start = time.perf_counter()
    for epoch in range(options.epochs):
        run(net, scheduler, epoch, train_loader, stats.training, optimizer)
        predictions = run(net, scheduler, epoch, test_loader, stats.testing)
        rate.step()
        scheduler.sync_snn_stat(stats.testing)
        print(f"[Epoch {epoch:2d}/{options.epochs}] {stats.training}")
        print(f"SNN Testing: {scheduler.snn_stat}", flush=True)
        scheduler.update_snn_stat()
        stats.update()
    print(f"{time.perf_counter() - start:.0f} s")
    stats.save(options.out)
    torch.save(net.state_dict(), options.out / "network.pt")

    net.export_hdf5(options.out / "network.net")
    chip = spikestrap.load(options.out / "network.net")
    logits = torch.from_numpy(chip.run(data.test.x, net.time_steps).logits)
    agree = torch.mean((logits.argmax(1) == predictions).float()).item()
    right = torch.mean((logits.argmax(1) == data.test.y).float()).item()
    print(f"{options.out / 'network.net'}: accuracy = {right:.5f}, same predictions: {agree:.5f}")
    return stats.testing.accuracy_log[-1], agree


if __name__ == "__main__":
    main()
