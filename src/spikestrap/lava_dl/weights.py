"""The weights of a block: what scripts ask of them, and masks."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from ..block.complex import ComplexSynapse
from ..errors import SpikestrapError
from ..synapse import Synapse
from .afterwards import given_to_the_block

PRE_HOOK_FX = given_to_the_block("pre_hook_fx", "left out for 8-bit weights, None for float ones")


class SynapseView:
    """What scripts ask of a block's synapse.

    >>> from spikestrap.synapse import linear
    >>> SynapseView(linear(4, 3, False, 1.0, True)).weight_norm_enabled
    True
    """

    pre_hook_fx = PRE_HOOK_FX

    def __init__(self, synapse: Synapse) -> None:
        self._synapse = synapse

    @property
    def weight(self) -> Tensor:
        """The effective weight, in torch's shape for such a layer, before rounding.

        Setting it copies values. Written in place it takes effect, but not with weight norm, where
        it is computed.
        """
        trained = self._trained
        if isinstance(trained, Tensor) or not isinstance(trained[0], _Mask):
            return self._synapse.weight
        # What was written outside the mask, or loaded, has no effect there.
        trained.original.data.mul_(trained[0].mask)
        return trained.original

    @weight.setter
    def weight(self, value: Tensor) -> None:
        layer, weight = self._synapse.layer, self._synapse.weight
        if not isinstance(value, Tensor) or value.shape != weight.shape:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise SpikestrapError(
                f"synapse.weight: expected a tensor of shape {tuple(weight.shape)}, got {got}"
            )
        with torch.no_grad():
            if isinstance(self._trained, Tensor):
                weight.copy_(value)
            else:
                layer.weight = value.detach().to(weight, copy=True)

    @property
    def shape(self) -> torch.Size:
        """That of the weight."""
        return self._synapse.weight.shape

    @property
    def weight_norm_enabled(self) -> bool:
        """Whether direction and length of the weights train apart."""
        return hasattr(self._trained, "original0")

    @property
    def grad_norm(self) -> float:
        """Norm of the weights' gradient, with weight norm that of their lengths, over its size."""
        trained = self._trained
        if self.weight_norm_enabled:
            trained = trained.original0
        elif not isinstance(trained, Tensor):
            trained = trained.original
        return 0.0 if trained.grad is None else float(trained.grad.norm()) / trained.numel()

    @property
    def _trained(self) -> Any:
        layer: Any = self._synapse.layer
        return layer.parametrizations.weight if hasattr(layer, "parametrizations") else layer.weight


class ComplexSynapseView:
    """The same of complex weights: `real` and `imag`, a `SynapseView` each."""

    pre_hook_fx = PRE_HOOK_FX

    def __init__(self, synapse: ComplexSynapse) -> None:
        assert isinstance(synapse.real, Synapse)
        assert isinstance(synapse.imag, Synapse)
        self.real, self.imag = SynapseView(synapse.real), SynapseView(synapse.imag)

    @property
    def shape(self) -> torch.Size:
        """That of either weight."""
        return self.real.shape

    @property
    def grad_norm(self) -> float:
        """Norm of both gradients, over the size of one."""
        return math.hypot(self.real.grad_norm, self.imag.grad_norm)


class _Mask(nn.Module):
    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask

    def right_inverse(self, weight: Tensor) -> Tensor:
        """What gives that weight, as far as it lies within the mask."""
        return weight


def keep_only(synapse: nn.Module, mask: Tensor | None, where: str) -> None:
    """Holds the weights outside the mask (out_neurons, in_neurons) at zero."""
    if mask is None:
        return
    if not isinstance(synapse, Synapse):
        raise SpikestrapError(f"{where}: mask is not carried over for complex weights")
    if mask.shape != synapse.weight.shape:
        raise SpikestrapError(
            f"{where}: expected a mask of shape {tuple(synapse.weight.shape)}, one a weight, got "
            f"{tuple(mask.shape)}"
        )
    register_parametrization(synapse.layer, "weight", _Mask(mask.to(synapse.weight.dtype)))
