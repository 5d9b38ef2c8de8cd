"""Blocks without spikes: Flatten, and what reads a network out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .. import block as blocks
from ..block.base import split_neuron
from ..counts import whole_number
from ..errors import SpikestrapError
from ..neuron import ChipCUBA, Neuron
from ..neuron.parameter import keep_in_bounds
from ..routine import Mode
from ..timeaxis import over_time
from .afterwards import refuse_set_afterwards
from .surface import EIGHT_BIT, Params, TimeLast, wants_chip
from .weights import SynapseView, keep_only


class Flatten(TimeLast):
    """Images to vectors: (N, C, H, W, T) to (N, C H W, T).

    >>> import torch
    >>> from spikestrap.lava_dl.bootstrap import Mode, block
    >>> neuron = dict(threshold=1.25, current_decay=1, voltage_decay=0.03)
    >>> block.cuba.Flatten()(torch.rand(8, 2, 12, 12, 16), mode=Mode.SNN).shape
    torch.Size([8, 288, 16])
    """

    def __init__(self, count_log: bool = False) -> None:
        super().__init__(blocks.Flatten(), (), count_log)


class _Readout(TimeLast):
    """A block with weights, and a neuron that does not spike."""

    block: blocks.Affine

    def __init__(
        self,
        neuron: Neuron | None,
        in_neurons: int,
        out_neurons: int,
        weight_scale: float,
        weight_norm: bool,
        mask: Tensor | None,
        count_log: bool,
    ) -> None:
        name = type(self).__name__
        made = self.family.blocks.Affine(
            None,
            whole_number(f"{name}: in_neurons", in_neurons, 1),
            whole_number(f"{name}: out_neurons", out_neurons, 1),
            bias=False,
            weight_scale=float(weight_scale),
            weight_norm=weight_norm,
        )
        keep_only(made.synapse, mask, name)
        super().__init__(made, (in_neurons,), count_log)
        self.features = (in_neurons,)
        # In a tuple it is no part of the module: what runs nothing is not trained or saved.
        self._neuron = (neuron,)

    @property
    def neuron(self) -> Neuron | None:
        """That of neuron_params, time first; only a readout of voltages runs it."""
        neuron = self._neuron[0]
        if neuron is not None:
            keep_in_bounds(neuron)
        return neuron

    @classmethod
    def _of(cls, params: Params, **own: Any) -> Neuron:
        made = {**cls.family.translate(params, cls.__name__), **own}
        return split_neuron(made, cls.family.blocks.Affine.neuron_type, cls.__name__)[0]

    @property
    def synapse(self) -> SynapseView:
        """Its weights."""
        return SynapseView(self.block.synapse)


class Affine(_Readout):
    """The readout, without spikes: (N, in_neurons, T) to (N, out_neurons, T).

    In slayer with dynamics=True the output is the voltage of a neuron that never resets, else
    the weighted input; in bootstrap, as there, always the latter. The options are those of
    `Dense`.

    >>> import torch
    >>> from spikestrap.lava_dl.bootstrap import Mode, block
    >>> neuron = dict(threshold=1.25, current_decay=1, voltage_decay=0.03)
    >>> affine = block.cuba.Affine(neuron, 512, 10)
    >>> affine(torch.rand(8, 512, 16), mode=Mode.SNN).shape
    torch.Size([8, 10, 16])
    >>> affine(torch.rand(8, 512, 1), mode=Mode.ANN).shape
    torch.Size([8, 10, 1])
    """

    def __init__(
        self,
        neuron_params: Params,
        in_neurons: int,
        out_neurons: int,
        weight_scale: float = 1,
        weight_norm: bool = False,
        pre_hook_fx: Any = EIGHT_BIT,
        dynamics: bool = True,
        mask: Tensor | None = None,
        count_log: bool = False,
    ) -> None:
        on_chip = wants_chip(self.family, pre_hook_fx, type(self).__name__)
        voltages = self.direct and dynamics
        neuron: Neuron | None = None
        if voltages or neuron_params is not None:
            neuron = self._of(neuron_params, reset="none")
            neuron = ChipCUBA(neuron) if on_chip else neuron
        sizes = (in_neurons, out_neurons, weight_scale, weight_norm)
        super().__init__(neuron, *sizes, mask, count_log)
        if on_chip:
            self.block.quantize()
        self.membrane = neuron if voltages else None
        if voltages:
            self.adds = "reads out voltages"

    def _run(self, x: Tensor, mode: Mode) -> Tensor:
        if not mode.spiking:
            return self.block(x)
        z = over_time(self.block, x)
        if self.membrane is None:
            return z
        keep_in_bounds(self.membrane)
        refuse_set_afterwards(self.membrane, type(self).__name__)
        return _voltage(self.membrane, z)


class Output(_Readout):
    """The readout of sigma-delta layers, summed up over time: (N, in_neurons, T) to (N, out, T).

    >>> import torch
    >>> from spikestrap.lava_dl.slayer.block import sigma_delta
    >>> sigma_delta.Output(dict(threshold=0.1, activation="relu"), 2, 3)(torch.rand(8, 2, 4)).shape
    torch.Size([8, 3, 4])
    """

    def __init__(
        self,
        neuron_params: Params,
        in_neurons: int,
        out_neurons: int,
        weight_scale: float = 1,
        weight_norm: bool = False,
        count_log: bool = False,
    ) -> None:
        sizes = (in_neurons, out_neurons, weight_scale, weight_norm)
        super().__init__(self._of(neuron_params), *sizes, None, count_log)

    adds = "sums up over time"

    def _run(self, x: Tensor, mode: Mode) -> Tensor:
        return over_time(self.block, x).cumsum(0)


class Average(TimeLast):
    """Means of num_outputs groups of neurons, in order: (N, ..., T) to (N, num_outputs, T).

    >>> import torch
    >>> from spikestrap.lava_dl.bootstrap import Mode, block
    >>> neuron = dict(threshold=1.25, current_decay=1, voltage_decay=0.03)
    >>> block.cuba.Average(2)(torch.rand(8, 6, 16), mode=Mode.SNN).shape
    torch.Size([8, 2, 16])
    """

    def __init__(self, num_outputs: int, count_log: bool = False) -> None:
        super().__init__(
            _GroupMean(whole_number("Average: num_outputs", num_outputs, 1)), (), count_log
        )


class _GroupMean(nn.Module):
    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor, mode: Mode) -> Tensor:
        """Spikes (T, N, ...) to (T, N, groups)."""
        vectors = x.flatten(2)
        if vectors.shape[2] % self.groups:
            raise SpikestrapError(
                f"Average: {vectors.shape[2]} neurons do not make {self.groups} groups of one size"
            )
        return vectors.unflatten(2, (self.groups, -1)).mean(3)


def _voltage(neuron: Neuron, z: Tensor) -> Tensor:
    """The membrane of a neuron that does not reset, (T, N, ...); its state's second part."""
    state, voltages = neuron.init_state(z[0]), []
    for step in z:
        _, state = neuron.step(step, state)
        voltages.append(state[1])
    return torch.stack(voltages)
