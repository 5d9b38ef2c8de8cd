"""Whether a kernel may read tensors from their memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch._C._functorch import TransformType, peek_interpreter_stack
from torch.utils._python_dispatch import _len_torch_dispatch_stack  # type: ignore[attr-defined]


def transformed() -> bool:
    """Whether a transform of torch.func is at work: a tensor may stand for many, its values unseen.

    >>> transformed(), torch.func.vmap(lambda x: x + transformed())(torch.zeros(2)).tolist()
    (False, [1.0, 1.0])
    """
    # A compiler's own transforms are no concern of what it traces.
    top = None if torch.compiler.is_compiling() else peek_interpreter_stack()
    return top is not None and top.key() != TransformType.Functionalize


def in_memory(*tensors: Tensor) -> bool:
    """Whether all have their values in memory, and nothing traces or transforms what is done to
    them: an operator's dispatch sees to all else.

    >>> x = torch.rand(3)
    >>> in_memory(x), in_memory(torch._neg_view(x))
    (True, False)
    """
    return not (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()  # type: ignore[attr-defined]
        or _len_torch_dispatch_stack()
        or peek_interpreter_stack() is not None
    ) and all(
        type(x) in (Tensor, nn.Parameter) and not x.is_neg() and not x._is_zerotensor()
        for x in tensors
    )
