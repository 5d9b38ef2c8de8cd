"""Bootstrap training for models written with another library's neurons.

network: `bootstrap`, the wrapped model. adapter: what has to be known of a neuron, and the
list of those that are known; one file a library, read only where that library is loaded.
find, commute: what can be wrapped, and what is refused. layout: where time is in a tensor.
"""

from .adapter import register
from .network import Wrapped, bootstrap

__all__ = ["Wrapped", "bootstrap", "register"]
