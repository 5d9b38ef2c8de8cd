"""The neurons of lava-dl's blocks, and where spikestrap has blocks of them."""

from .. import block
from .surface import Family

_LEAKS = ("current_decay", "voltage_decay")
_ADAPTS = ("threshold_decay", "refractory_decay")

CUBA = Family(block.cuba, _LEAKS, on_chip=True, required=_LEAKS)
ALIF = Family(block.alif, (*_LEAKS, *_ADAPTS), required=_LEAKS)
RF = Family(block.rf, ("period", "decay"), complex_weights=True)
RF_IZ = Family(block.rf_iz, ("period", "decay"), complex_weights=True)
ADRF = Family(block.adrf, ("period", "decay", *_ADAPTS), complex_weights=True)
ADRF_IZ = Family(block.adrf_iz, ("period", "decay", *_ADAPTS), complex_weights=True)
SIGMA_DELTA = Family(
    block.sigma_delta,
    ("threshold",),
    encoder_ignores=("activation", "bias"),
    sends_changes=True,
    shift=False,
)
