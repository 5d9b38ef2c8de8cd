"""Spiking neurons, one a file: input z (T, N, ...) to spikes (T, N, ...).

All fire where v > threshold, strictly, and reset by one of three rules:
"zero", "subtract" or "none"; but `Delta` and `SigmaDelta` send changes from the threshold on,
without a reset. Your own neuron is a `Neuron` with two methods.
"""

from .adrf import AdRF
from .adrf_iz import AdRFIzhikevich
from .alif import ALIF
from .base import Neuron
from .chip import ChipCUBA
from .cuba import CUBA
from .firing import Firing
from .integrate_fire import IF
from .lif import LIF
from .noisy_lif import NoisyLIF
from .plif import PLIF
from .refractory_lif import RefractoryLIF
from .rf import RF
from .rf_iz import RFIzhikevich
from .sigma_delta import Delta, SigmaDelta
from .surrogate import SURROGATES, Surrogate, spike

__all__ = [
    "ALIF",
    "CUBA",
    "IF",
    "LIF",
    "PLIF",
    "RF",
    "SURROGATES",
    "AdRF",
    "AdRFIzhikevich",
    "ChipCUBA",
    "Delta",
    "Firing",
    "Neuron",
    "NoisyLIF",
    "RFIzhikevich",
    "RefractoryLIF",
    "SigmaDelta",
    "Surrogate",
    "spike",
]
