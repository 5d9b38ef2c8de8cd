"""lava.lib.dl.slayer.neuron: what goes into a neuron dict besides numbers."""

from ...missing import missing
from . import cuba, norm
from .dropout import Dropout

__all__ = ["Dropout", "cuba", "norm"]

__getattr__ = missing(__name__, {"cuba_hoyer": "spikestrap has no Hoyer threshold"})
