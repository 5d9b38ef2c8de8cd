"""What a neuron is: `init_state` and `step`. Everything over time follows from these two."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..compiling import assume_constant_result
from ..counts import whole_or_none
from ..errors import SpikestrapError
from ..kernel import automatic, backend, dynamo
from ..kernel.reference import State
from ..precision import unhalved, whole, without_autocast
from .parameter import Bounds


class Neuron(nn.Module, ABC):
    """A spiking neuron: input z (T, N, ...) to spikes (T, N, ...).

    A neuron implements `init_state` and `step` in plain torch arithmetic, for one time
    step. A kernel that runs all steps at once is compiled from `step` where that can be traced.

    Parameters stay float32 where the module is cast to half precision, as the state is.

    >>> class Parrot(Neuron):
    ...     "Fires whenever its input is positive."
    ...     def init_state(self, z):
    ...         return ()
    ...     def step(self, z, state):
    ...         return (z > 0).to(z.dtype), state
    >>> Parrot()(torch.tensor([[[0.5, -0.5]], [[-1.0, 2.0]]])).tolist()
    [[[1.0, 0.0]], [[0.0, 1.0]]]
    """

    # The parameters by name, each with the interval it is kept in.
    bounds: ClassVar[Mapping[str, Bounds]] = {}
    # Whether z may be complex: `step` then gets its real part as z, its imaginary part last.
    complex_input: ClassVar[bool] = False
    # Whether the same input can give other spikes: the expected rate is then no multiple of 1 / T.
    stochastic: ClassVar[bool] = False
    # Where the plain step runs, and not a fused kernel: steps between the states that are kept
    # for the backward pass, which runs the others again. None keeps what every step computes.
    # The square root of T takes least memory. Fused kernels keep few states by themselves.
    checkpoint_steps: int | None = None
    # Why no transfer curve can stand for the neuron; None where one can.
    not_bootstrappable: str | None = None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        return super()._apply(unhalved(fn), recurse)

    @abstractmethod
    def init_state(self, z: Tensor) -> State:
        """The state before the first step, for inputs shaped like z (N, ...)."""

    @abstractmethod
    def step(self, z: Tensor, state: State) -> tuple[Tensor, State]:
        """One time step: input z (N, ...) and state to spikes (N, ...) and the next state."""

    def extra(self, z: Tensor, time_steps: int) -> tuple[Tensor, ...]:
        """What `step` gets besides z and the state, such as noise: none, unless overridden.

        Each is (T, N, ...), or (1, N, ...) if it is held. Asked for once, before the first
        step; step t is called as ``step(z[t], state, *(e[t] for e in extra))``.
        """
        return ()

    def checked_extra(self, z: Tensor, time_steps: int) -> tuple[Tensor, ...]:
        """What `extra` gives, or SpikestrapError: kernels read as many steps as they are told."""
        extra = self.extra(z, time_steps)
        if isinstance(extra, tuple) and all(
            isinstance(part, Tensor) and part.ndim and part.shape[0] in (1, time_steps)
            for part in extra
        ):
            return extra
        got: Any = type(extra).__name__
        if isinstance(extra, tuple):
            got = [tuple(getattr(part, "shape", ())) for part in extra]
        raise SpikestrapError(
            f"{type(self).__name__}: expected a tuple of tensors (T, N, ...), T = {time_steps}, or "
            f"(1, N, ...) from `extra`, got {got}"
        )

    def forward(
        self,
        z: Tensor,
        state: State | None = None,
        *,
        time_steps: int | None = None,
        return_state: bool = False,
    ) -> Tensor | tuple[Tensor, State]:
        """Runs the neuron over time.

        z: (T, N, ...), floating (or complex, where `complex_input` says so); or (1, N, ...)
        with `time_steps=T` for an input that is held for T steps. Starts from `state`, or
        from `init_state`; `return_state=True` returns (spikes, state), to go on from there: a
        sequence run in chunks gives what it gives in one piece. The state is float32 for
        half-precision inputs; the spikes have z's dtype.

        >>> import spikestrap as ss
        >>> lif = ss.neuron.LIF(threshold=1.0, voltage_decay=0.5)
        >>> z = torch.full((4, 1, 1), 0.8)
        >>> lif(z).flatten().tolist()
        [0.0, 1.0, 0.0, 1.0]
        >>> first, state = lif(z[:1], return_state=True)
        >>> lif(z[1:], state).flatten().tolist()
        [1.0, 0.0, 1.0]
        """
        time_steps = self._check(z, time_steps)
        z, *imag = (z.real, z.imag) if z.is_complex() else (z,)
        dtype = z.dtype
        if imag or not backend.takes_triton(z):
            z, *imag = map(whole, (z, *imag))
        # Autocast would have the reference's arithmetic fall back to half precision.
        with without_autocast(z.device.type):
            fresh = self.init_state(whole(z[0]))
            state = fresh if state is None else self._check_state(state, fresh)
            # A float32 copy of all of z only for those who may look at it.
            plain = type(self).extra is Neuron.extra
            extra = () if plain else self.checked_extra(whole(z), time_steps)
            inputs = (z, *extra, *imag)
            spikes, state = automatic.run(self, inputs, state, time_steps)
        spikes = spikes.to(dtype)
        return (spikes, state) if return_state else spikes

    @assume_constant_result
    def _registered(
        self, axes: int, channels: int, device: torch.device, dtype: torch.dtype
    ) -> tuple[int, str]:
        # A method, since torch.compile hands itself to nothing else.
        return dynamo.register(self, axes, channels, device, dtype)

    def _check(self, z: Tensor, time_steps: int | None) -> int:
        name = type(self).__name__
        whole_or_none(f"{name}: checkpoint_steps", self.checkpoint_steps, 1)
        if not isinstance(z, Tensor):
            raise SpikestrapError(f"{name}: expected a tensor z, got {type(z).__name__}")
        if z.ndim < 2 or z.shape[0] == 0:
            raise SpikestrapError(
                f"{name}: expected z (T, N, ...) with T >= 1, got shape {tuple(z.shape)}"
            )
        if not (z.is_floating_point() or (self.complex_input and z.is_complex())):
            kind = "floating-point or complex" if self.complex_input else "floating-point"
            raise SpikestrapError(f"{name}: expected a {kind} z, got {z.dtype}")
        if time_steps is None or time_steps == z.shape[0]:
            return z.shape[0]
        if z.shape[0] != 1 or time_steps < 1:
            raise SpikestrapError(
                f"{name}: time_steps={time_steps} goes with an input (1, N, ...) that is held, "
                f"and must be >= 1; got shape {tuple(z.shape)}"
            )
        return time_steps

    def _check_state(self, state: State, fresh: State) -> State:
        shapes = [tuple(part.shape) for part in state]
        expected = [tuple(part.shape) for part in fresh]
        if shapes != expected:
            raise SpikestrapError(
                f"{type(self).__name__}: expected a state of shapes {expected}, got {shapes}"
            )
        return tuple(part.to(like) for part, like in zip(state, fresh, strict=True))
