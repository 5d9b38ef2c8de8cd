"""Frozen networks: a network as an SNN for inference, and for nothing else.

`Network.freeze` makes one. `synapses` and `neurons` are the two halves of a block, `stages` what
a network is made into, `network` runs it.
"""

from .network import Frozen

__all__ = ["Frozen"]
