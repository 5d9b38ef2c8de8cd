"""What the tests of lava-dl's surface share."""

import h5py
import numpy as np
import torch

import spikestrap.lava_dl.slayer as slayer

NEURON = {"threshold": 1.25, "current_decay": 1, "voltage_decay": 0.03}
MEAN_ONLY = slayer.neuron.norm.MeanOnlyBatchNorm


def spikes(*shape):
    return (torch.rand(*shape) < 0.4).float()


def content(path):
    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: (
                found.update({name: np.array(item)}) if isinstance(item, h5py.Dataset) else None
            )
        )
    return found


def pair(ours, theirs):
    """A block of each surface with the same weights."""
    ours.quantize()
    theirs.block.load_state_dict(ours.state_dict())
    return ours, theirs
