"""Bootstrap training of a LightningModule that knows nothing of it: `BootstrapCallback`.

python examples/lightning_trainer.py [EPOCHS] [DEVICES]

A script named lightning.py would hide the package of that name from itself.
"""

import sys

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

import spikestrap as ss
from spikestrap.train import BootstrapCallback, digits


class Classifier(pl.LightningModule):
    """As one would write it for any network."""

    def __init__(self):
        super().__init__()
        neuron = dict(threshold=1.0, voltage_decay=0.0, reset="subtract", v_init=0.5)
        self.net = ss.Network(
            ss.block.Flatten(),
            ss.block.cuba.Dense(neuron, 64, 128, weight_norm=True),
            ss.block.cuba.Dense(neuron, 128, 128, weight_norm=True),
            ss.block.cuba.Affine(neuron, 128, 10),
            time_steps=4,
        )

    def forward(self, x):
        return self.net(x)  # in the mode that the callback gives

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self(x), y)

    def validation_step(self, batch, batch_idx):
        pass  # the callback measures: snn_accuracy, ann_accuracy, gap, event_rate

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


def main(epochs, devices):
    pl.seed_everything(0, verbose=False)
    data = digits()
    train, validation = (
        DataLoader(TensorDataset(part.x, part.y), 64, shuffle=part is data.train)
        for part in (data.train, data.validation)
    )
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=devices,
        max_epochs=epochs,
        check_val_every_n_epoch=epochs,
        num_sanity_val_steps=0,
        callbacks=[BootstrapCallback(ss.Scheduler(num_sample_iter=5, sample_period=5))],
        logger=False,
        enable_checkpointing=False,
    )
    trainer.fit(Classifier(), train, validation)
    if trainer.is_global_zero:
        for name in ("snn_accuracy", "ann_accuracy", "gap", "event_rate"):
            print(f"{name}: {float(trainer.callback_metrics[name]):.3f}")


if __name__ == "__main__":
    main(*(int(argument) for argument in (*sys.argv[1:], *(40, 1)[len(sys.argv) - 1 :])))
