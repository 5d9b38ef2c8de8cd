"""lava.lib.dl.slayer: blocks for direct training, losses, classifiers and learning statistics.

>>> import torch
>>> import spikestrap.lava_dl.slayer as slayer
>>> spikes = slayer.utils.time.replicate(torch.ones(8, 10), 16)        # (N, C, T)
>>> slayer.classifier.Rate.predict(spikes).shape
torch.Size([8])
"""

from ..missing import missing
from . import axon, block, classifier, loss, neuron, utils

__all__ = ["axon", "block", "classifier", "loss", "neuron", "utils"]

__getattr__ = missing(
    __name__,
    {
        "auto": "write the network's blocks down, as in torch.nn.ModuleList([...])",
        "dendrite": "spikestrap.neuron.SigmaDelta sums up what it gets",
        "io": "tonic or expelliarmus read event files; spikes are plain tensors here",
        "obd": "spikestrap has no object detection",
        "object_detection": "spikestrap has no object detection",
        "spike": "a neuron's spikes and surrogate gradient are spikestrap.neuron.spike",
        "synapse": "spikestrap.synapse has the synapses, time first",
    },
)
