"""Spikes forward, curves backward: an SNN's loss with one backward pass instead of T."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .block import Block
from .errors import SpikestrapError
from .norm import Norm
from .random_state import random_state, set_random_state
from .routine import Mode
from .straight_through import straight_through
from .timeaxis import time_mean
from .unit import no_units, units_of
from .wrap.unit import WrappedUnit


def rate_based(net: nn.Module, x: Tensor, **arguments: Any) -> Any:
    """The logits of ``net(x, Mode.SNN)``, with the gradient of the ANN at the SNN's rates.

    Rate-based backpropagation (Yu et al., Advancing training efficiency of deep spiking neural
    networks through rate-based backpropagation, NeurIPS 2024), with the fitted curves' slopes for
    the derivatives of rates. The SNN runs first, without a gradient, and each unit's rates are
    noted; then the ANN runs, and gets those rates in place of its curves'. Nothing is kept of the
    time steps, so memory and backward pass are an ANN's. Norms move their statistics once, and
    what is random, such as dropout, is drawn alike in both.

    The loss and all rates are those of the SNN, timing included; the slopes are those of the
    ANN, so a neuron's own parameters get no gradient, as in ANN mode. For the last epochs, when the
    network is good and its curves are: `Options` has it as ``snn_gradient="rate"``.

    Forward hooks of your own on units are called in both passes: with spikes, without a gradient,
    where ``torch.is_grad_enabled()`` is False; then with the same as rates, which have one.

    Args:
        net: a `Network`, what `spikestrap.bootstrap` returns, or any module with such units that
            is called as ``net(x, mode)``; its curves are fitted.
        x: what it takes, with ``arguments`` such as ``lengths``.

    Returns:
        Logits (N, out), or all that ``net`` returns; without gradients enabled those of the SNN
        alone. (A batch norm behind the last neuron of another library's model goes by the batch in
        training.)

    Raises:
        NotFittedError: a unit has no curve yet.
        SpikestrapError: the network has no units, or one that cannot be bootstrapped, or is
            compiled.

    >>> import spikestrap as ss
    >>> net = ss.Network(ss.block.cuba.Dense(dict(threshold=1.0), 64, 10), time_steps=4)
    >>> x = torch.rand(16, 64)
    >>> logits = net(x, ss.Mode.SAMPLE), net(x, ss.Mode.FIT)
    >>> torch.equal(rate_based(net, x), net(x, ss.Mode.SNN))
    True
    >>> rate_based(net, x).square().sum().backward()
    >>> net.blocks[0].synapse.layer.weight.grad.shape
    torch.Size([10, 64])
    """
    if not torch.is_grad_enabled():
        return net(x, Mode.SNN, **arguments)
    _check_not_compiled(net)
    units: list[nn.Module] = [unit for _, unit in units_of(net)]
    if not units:
        raise no_units("rate_based", net)
    # What comes late arrives at another rate than it was fired at.
    late = (m for m in net.modules() if isinstance(m, Block) and m.delay_shift)
    notes = [(module, _Notes(module)) for module in (*units, *late)]
    start = random_state(x.device)
    with torch.no_grad(), _statistics_kept(net), ExitStack() as hooks:
        for module, note in notes:
            hooks.enter_context(module.register_forward_hook(note.take, prepend=True))
        net(x, Mode.SNN, **arguments)
    set_random_state(start, x.device)
    with ExitStack() as hooks:
        for module, note in notes:
            # Before those of the user, which so see the rates that the next layer gets.
            hooks.enter_context(module.register_forward_hook(note.give, prepend=True))
        return net(x, Mode.ANN, **arguments)


def _check_not_compiled(net: nn.Module) -> None:
    # Compiled code keeps the hooks that it was compiled with, and would use old rates.
    compiled = any(hasattr(m, "_orig_mod") or m._compiled_call_impl for m in net.modules())
    if compiled or torch.compiler.is_compiling():
        raise SpikestrapError(
            "rate_based: expected a network that is not compiled, and to be called outside of "
            "what torch.compile compiles; its neurons run on compiled kernels anyway"
        )


class _Notes:
    """The rates that calls of a unit, or of a block, gave in a spiking pass.

    And where the generators stood then. A block may give its event rate as well.
    """

    def __init__(self, module: nn.Module) -> None:
        # One of another library is called once a step, and all its calls make up one rate.
        self._stepwise = isinstance(module, WrappedUnit)
        self._calls: list[tuple[Tensor, dict[str, Any]]] = []
        self._steps = 0

    def take(self, module: nn.Module, args: Any, output: Any) -> None:
        """A hook of the spiking pass: notes what a call gave."""
        spikes = output[0] if isinstance(output, tuple) else output
        rate, steps = time_mean(spikes), spikes.shape[0]
        if self._stepwise and self._calls:
            before = self._calls.pop()[0]
            rate = before.lerp(rate, steps / (self._steps + steps))
        self._steps += steps
        self._calls.append((rate, random_state(spikes.device)))

    def give(self, module: nn.Module, args: Any, output: Any) -> Any:
        """A hook of the pass on rates: the call's rates, with the slopes of the curve."""
        if not torch.is_grad_enabled():
            return None  # not this pass, but one that tries the user's model out
        if not self._calls:
            raise SpikestrapError(
                "rate_based: a unit was called more often on rates than with spikes; expected a "
                "forward that calls the same ones in every mode"
            )
        rate, state = self._calls[0] if self._stepwise else self._calls.pop(0)
        by_curve, *rest = output if isinstance(output, tuple) else (output,)
        set_random_state(state, by_curve.device)
        given = straight_through(by_curve, lambda curve: rate.to(curve, copy=True))
        return (given, *rest) if rest else given


@contextmanager
def _statistics_kept(net: nn.Module) -> Iterator[None]:
    """The running statistics of norms are afterwards what they were before."""
    norms = [m for m in net.modules() if isinstance(m, Norm | nn.modules.batchnorm._NormBase)]
    buffers = [buffer for norm in norms for buffer in norm.buffers()]
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)
