"""lava.lib.dl.slayer.block: blocks for direct training, one module a neuron."""

from ...missing import missing
from . import adrf, adrf_iz, alif, cuba, rf, rf_iz, sigma_delta

__all__ = ["adrf", "adrf_iz", "alif", "cuba", "rf", "rf_iz", "sigma_delta"]

__getattr__ = missing(
    __name__,
    {
        "base": "a block of your own is a spikestrap.block.Block, time first",
        "cuba_hoyer": "spikestrap has no Hoyer threshold",
    },
)
