"""lava.lib.dl.bootstrap.block.base: its `Mode`."""

from ...missing import missing
from ..routine import Mode

__all__ = ["Mode"]

__getattr__ = missing(
    __name__, {"AbstractBlock": "a block of your own is a spikestrap.block.Block, time first"}
)
