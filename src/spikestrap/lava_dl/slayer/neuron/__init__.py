"""lava.lib.dl.slayer.neuron: what goes into a neuron dict besides numbers."""

from ...missing import missing
from . import cuba, norm
from .dropout import Dropout

__all__ = ["Dropout", "cuba", "norm"]

__getattr__ = missing(
    __name__,
    {
        "adrf": "spikestrap.neuron.AdRF, time first",
        "adrf_iz": "spikestrap.neuron.AdRFIzhikevich, time first",
        "alif": "spikestrap.neuron.ALIF, time first",
        "base": "a neuron of your own is a spikestrap.neuron.Neuron, time first",
        "cuba_hoyer": "spikestrap has no Hoyer threshold",
        "dynamics": "a neuron's step has them: spikestrap.neuron.CUBA, time first",
        "rf": "spikestrap.neuron.RF, time first",
        "rf_iz": "spikestrap.neuron.RFIzhikevich, time first",
        "sigma_delta": "spikestrap.neuron.SigmaDelta, time first",
    },
)
