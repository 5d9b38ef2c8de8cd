"""Attributes of lava-dl's blocks and neurons that, set on those here, would do nothing."""

from __future__ import annotations

from ..errors import SpikestrapError
from ..neuron import Neuron
from ..norm import Norm
from .neuron_params import WITHOUT

_IN_THE_DICT = {
    "_threshold": "neuron.threshold.fill_(value) sets it, as a fraction",
    "drop": "dropout goes into the neuron dict",
    "norm": "norm goes into the neuron dict",
    "tau_rho": "tau_grad goes into the neuron dict",
    "scale_rho": "scale_grad goes into the neuron dict",
}


def given_to_the_block(name: str, instead: str) -> property:
    """An attribute that is not set but given to the block; it raises SpikestrapError."""

    def refuse(self: object, value: object) -> None:
        raise SpikestrapError(
            f"{name} is not set afterwards but given to the block{instead and f': {instead}'}"
        )

    return property(fset=refuse)


def refuse_set_afterwards(neuron: Neuron, where: str) -> None:
    """Raises SpikestrapError where a script has set what lava-dl's neuron would heed.

    >>> import spikestrap as ss
    >>> neuron = ss.neuron.IF(threshold=1.0)
    >>> neuron.graded_spike = True
    >>> refuse_set_afterwards(neuron, "Dense")
    Traceback (most recent call last):
    ...
    spikestrap.errors.SpikestrapError: Dense: neuron.graded_spike, set afterwards, does nothing: \
spikes are 0 or 1
    """
    found = {**vars(neuron), **neuron._modules}
    for name, instead in _IN_THE_DICT.items():
        if name in found and not isinstance(found[name], Norm):  # one that is the neuron's own
            raise SpikestrapError(
                f"{where}: neuron.{name}, set afterwards, does nothing: {instead}"
            )
    for name, (neutral, instead) in WITHOUT.items():
        if found.get(name, neutral) != neutral:
            raise SpikestrapError(
                f"{where}: neuron.{name}, set afterwards, does nothing: {instead}"
            )
