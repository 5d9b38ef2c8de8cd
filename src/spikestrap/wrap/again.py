"""What `torch.utils.checkpoint` would compute again in the backward pass, and by then otherwise.

What holds in a pass is over by then: neurons and batch norms have forwards of their own again,
and running statistics have moved.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointFunction

from ..errors import SpikestrapError

Call = Callable[..., Any]


def once(module: nn.Module, call: Call) -> Call:
    """The call in place of a module's forward; raises where it would be made again without it.

    With `use_reentrant=False` torch itself sees that something else was computed.
    """
    if not torch.is_grad_enabled():
        return call

    def forward(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled() and _in_checkpoint():
            raise SpikestrapError(
                f"bootstrap: torch.utils.checkpoint inside the model's forward, around "
                f"{type(module).__name__}: computed again in the backward pass, that would run "
                "by its own code, not as in this pass. Checkpoint around the network, not inside it"
            )
        return call(*args, **kwargs)

    return forward


def _in_checkpoint() -> bool:
    """Whether a function is run that has no graph as it will be run again."""
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code is CheckpointFunction.forward.__code__:
            return True
    return False


def refuse_again() -> None:
    """Raises where running statistics, by which a pass goes, have moved since it was first made."""
    if not torch.compiler.is_compiling() and torch._C._current_graph_task_id() >= 0:
        raise SpikestrapError(
            "bootstrap: a pass on spikes is computed again in the backward pass, by "
            "torch.utils.checkpoint, but the running statistics of its batch norms have moved "
            "since: checkpoint passes in ANN mode alone, or put the batch norms in eval mode"
        )
