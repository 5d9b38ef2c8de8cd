"""Rate-coded spiking networks with few time steps, at nearly the cost of an ordinary network.

Run the network as an SNN for a few batches, sample each layer's (mean input, rate), fit a
curve, train as an ANN with the curves, measure them again now and then, run it as an SNN.
"""

__version__ = "0.1.0"

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import ann_sampler, block, exchange, fixed, kernel, neuron, norm, routine, unit, wrap
    from .diagnosis import diagnose
    from .errors import NotFittedError, SpikestrapError, SpikestrapWarning
    from .exchange import load, save
    from .kernel import use_backend
    from .network import Network
    from .operations import Cost, cost
    from .rate_gradient import rate_based
    from .routine import LayerMode, Mode, Scheduler, mode
    from .timeaxis import hold, pad, ragged
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
    "kernel",
    "load",
    "mode",
    "neuron",
    "norm",
    "pad",
    "ragged",
    "rate_based",
    "routine",
    "save",
    "unit",
    "use_backend",
    "wrap",
]

# torch takes seconds to load, so nothing is loaded before it is asked for: `spikestrap --help` and
# shell completion answer at once. What type checkers and editors read above, Python finds here:
# the module that each name comes from. A name that is not here is a module itself.
_HOMES = {
    "Cost": "operations",
    "LayerMode": "routine",
    "Mode": "routine",
    "Network": "network",
    "NotFittedError": "errors",
    "Scheduler": "routine",
    "SpikestrapError": "errors",
    "SpikestrapWarning": "errors",
    "bootstrap": "wrap",
    "cost": "operations",
    "diagnose": "diagnosis",
    "hold": "timeaxis",
    "load": "exchange",
    "mode": "routine",
    "pad": "timeaxis",
    "ragged": "timeaxis",
    "rate_based": "rate_gradient",
    "save": "exchange",
    "use_backend": "kernel",
}

if not TYPE_CHECKING:  # for whom a misspelt name would be one of any type

    def __getattr__(name: str) -> Any:
        """The public name, loaded with its module at first use (PEP 562)."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        home = import_module(f".{_HOMES.get(name, name)}", __name__)
        value = getattr(home, name) if name in _HOMES else home
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
