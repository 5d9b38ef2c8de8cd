"""Rate-coded spiking networks with few time steps, at nearly the cost of an ordinary network.

Run the network as an SNN for a few batches, sample each layer's (mean input, rate), fit a
curve, train as an ANN with the curves, measure them again now and then, run it as an SNN.
"""

__version__ = "0.1.0"

from . import ann_sampler, block, exchange, fixed, neuron, norm, routine, unit, wrap
from .cost import Cost, cost
from .diagnosis import diagnose
from .errors import NotFittedError, SpikestrapError, SpikestrapWarning
from .exchange import load, save
from .kernel import use_backend
from .network import Network
from .routine import LayerMode, Mode, Scheduler, mode
from .timeaxis import hold
from .wrap import bootstrap

__all__ = [
    "Cost",
    "LayerMode",
    "Mode",
    "Network",
    "NotFittedError",
    "Scheduler",
    "SpikestrapError",
    "SpikestrapWarning",
    "ann_sampler",
    "block",
    "bootstrap",
    "cost",
    "diagnose",
    "exchange",
    "fixed",
    "hold",
    "load",
    "mode",
    "neuron",
    "norm",
    "routine",
    "save",
    "unit",
    "use_backend",
    "wrap",
]
