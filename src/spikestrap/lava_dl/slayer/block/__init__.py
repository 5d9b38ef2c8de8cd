"""lava.lib.dl.slayer.block: blocks for direct training, one module a neuron."""

from ...missing import missing
from . import cuba

__all__ = ["cuba"]

__getattr__ = missing(__name__, {"cuba_hoyer": "spikestrap has no Hoyer threshold"})
