"""A model whose parts may be compiled, run by its own code for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ..compiling import loaded
from ..errors import SpikestrapError

# Where torch's module around a compiled one has it.
_COMPILED = "_orig_mod"


@contextmanager
def uncompiled(model: nn.Module) -> Iterator[None]:
    """Within it whatever `torch.compile` made of the model, or of its parts, runs uncompiled.

    Raises SpikestrapError where torch, before 2.6, cannot.
    """
    if hasattr(torch.compiler, "set_stance"):
        if loaded():  # else nothing is compiled
            with torch.compiler.set_stance("force_eager"):
                yield
            return
    elif any(_is_compiled(module) for module in model.modules()):
        raise SpikestrapError(
            "bootstrap: the model, or a part of it, is compiled already: bootstrap first, then "
            "compile, or take torch 2.6 or newer"
        )
    yield


def written(model: nn.Module) -> nn.Module:
    """The module as its user wrote it: what `torch.compile` makes of it hides its attributes."""
    inner = model._modules.get(_COMPILED)
    return model if inner is None else inner


def _is_compiled(module: nn.Module) -> bool:
    return module._compiled_call_impl is not None or _COMPILED in module._modules
