"""Spiking neurons, one a file: input z (T, N, ...) to spikes (T, N, ...).

All fire where v > threshold, strictly, and reset by one of three rules:
"zero", "subtract" or "none". Your own neuron is a `Neuron` with two methods.
"""

from .base import Neuron
from .chip import ChipCUBA
from .cuba import CUBA
from .firing import Firing
from .integrate_fire import IF
from .lif import LIF
from .surrogate import SURROGATES, Surrogate, spike

__all__ = [
    "CUBA",
    "IF",
    "LIF",
    "SURROGATES",
    "ChipCUBA",
    "Firing",
    "Neuron",
    "Surrogate",
    "spike",
]
