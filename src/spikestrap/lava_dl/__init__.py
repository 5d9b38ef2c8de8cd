"""lava-dl's names over spikestrap: its bootstrap scripts run with two import lines changed.

    import spikestrap.lava_dl.bootstrap as bootstrap    # was lava.lib.dl.bootstrap
    import spikestrap.lava_dl.slayer as slayer          # was lava.lib.dl.slayer

Tensors are time-last at this surface, (N, C, T) or (N, C, H, W, T), by views of what is
time-first underneath. docs/from-lava-dl.md goes through the names and the differences.
`to_network` gives a `spikestrap.Network` of the same blocks, to go on with time first.
"""

from . import bootstrap, slayer
from .missing import missing
from .network import to_network

__all__ = ["bootstrap", "slayer", "to_network"]

__getattr__ = missing(
    "lava_dl", {"netx": "spikestrap.load reads a .net file, which then runs in the chip's integers"}
)
