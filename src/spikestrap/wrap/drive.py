"""How a model is called: a sequence (t, N, ...) in, logits (N, ...) out, by its layout."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ..errors import SpikestrapError
from ..precision import whole
from ..timeaxis import has_time
from .layout import BATCH_FIRST, FOLDED, OWN, STEP, from_time_first
from .uncompiled import written
from .unit import Stop

Begin = Callable[[], None]

# Where a model that takes time whole may have its number of steps.
STEP_NAMES = (
    *("num_steps", "time_steps", "T", "n_steps", "timesteps", "num_timesteps"),
    *("seq_length", "sequence_length", "time_window"),
)

TELL_STEPS = (
    "a model that has its number of time steps itself must have it in an attribute of its own, "
    f"not of a part of it, that is one of {', '.join(STEP_NAMES)}"
)


def run(model: nn.Module, sequence: Tensor, layout: str, static: bool, begin: Begin) -> Any:
    """What the model returns for a sequence, averaged over time where it is there.

    begin: called before each call of the model.
    Of a tuple, the first entry. Not meaningful where a unit has raised `Stop`.
    """
    if layout == STEP:
        return _run_steps(model, sequence, begin)
    steps, batch = sequence.shape[:2]
    begin()
    try:
        output = _first(model(laid_out(sequence, layout, static)))
    except Stop:
        return None
    if not isinstance(output, Tensor):
        return output
    if layout == FOLDED and output.shape[0] == steps * batch:
        return output.unflatten(0, (batch, steps)).mean(1)
    # Or the model has averaged it already.
    return output.mean(1 if layout == BATCH_FIRST else 0) if has_time(output) else output


def laid_out(sequence: Tensor, layout: str, static: bool) -> Tensor:
    """A sequence (t, N, ...) as the model takes it."""
    if layout == STEP or (layout == OWN and static):
        return sequence[0]
    return sequence if layout == OWN else from_time_first(sequence, layout)


def takes_state(model: nn.Module) -> bool:
    """Whether a step's state is returned and passed to the next one, as Norse has it."""
    return "state" in inspect.signature(written(model).forward).parameters


def _run_steps(model: nn.Module, sequence: Tensor, begin: Begin) -> Any:
    """The mean over one call a step."""
    passes_state = takes_state(model)
    arguments: dict[str, Any] = {}
    total: Any = None
    for x in sequence:
        begin()
        try:
            output = model(x, **arguments)
        except Stop:
            continue
        if passes_state:
            output, arguments["state"] = output
        output = _first(output)
        if not isinstance(output, Tensor):
            return output
        # Whole: in half precision counts end at 256.
        total = whole(output) if total is None else total + output
    return total if total is None else (total / sequence.shape[0]).to(output.dtype)


def _first(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output


def check_logits(logits: Any, batch: int, layout: str, hint: str = "") -> Tensor:
    """The logits, or SpikestrapError if they are none; hint: why rows may be others."""
    if isinstance(logits, Tensor) and logits.ndim >= 2 and logits.shape[0] == batch:
        return logits
    got = f"{tuple(logits.shape)}{hint}" if isinstance(logits, Tensor) else type(logits).__name__
    raise SpikestrapError(
        f"bootstrap: expected the model to return logits ({batch}, classes), or those of each "
        f"step in layout {layout!r}, or a tuple that starts with them; got {got}"
    )


def step_name(model: nn.Module, time_steps: int) -> str | None:
    """The attribute in which the model has its number of time steps, if there is one."""
    own = vars(written(model))
    return next(
        (name for name in STEP_NAMES if type(own.get(name)) is int and own[name] == time_steps),
        None,
    )


@contextmanager
def steps_set(model: nn.Module, name: str | None, steps: int) -> Iterator[None]:
    """A model that has its number of steps itself, told to run for so many."""
    if name is None:
        yield
        return
    model = written(model)
    before = getattr(model, name)
    setattr(model, name, steps)
    try:
        yield
    finally:
        setattr(model, name, before)


@contextmanager
def explained(shape: tuple[int, ...], layout: str) -> Iterator[None]:
    """Whatever fails in the model, it may be that it takes time in another way."""
    try:
        yield
    except SpikestrapError:
        raise
    except Exception as error:
        raise SpikestrapError(
            f"bootstrap: the model's forward failed on an input {shape}, layout {layout!r} "
            f"(layout=... says how it takes time): {type(error).__name__}: {error}"
        ) from error
