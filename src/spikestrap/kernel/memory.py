"""Whether a kernel may read tensors from their memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch._C._functorch import (
    TransformType,
    get_interpreter_stack,
    is_functorch_wrapped_tensor,
    peek_interpreter_stack,
)
from torch.utils._python_dispatch import _len_torch_dispatch_stack  # type: ignore[attr-defined]

from ..compiling import assume_constant_result


def transformed() -> bool:
    """Whether a transform of torch.func is at work that operators cannot take: a tensor may stand
    for many, its values unseen.

    >>> transformed(), torch.func.vmap(lambda x: x + transformed())(torch.zeros(2)).tolist()
    (False, [1.0, 1.0])
    """
    return _transforms(TransformType.Functionalize)


def values_hidden() -> bool:
    """The same of any transform, functionalize among them, which operators do take."""
    return _transforms()


def batched(x: Tensor) -> bool:
    """Whether x is in the hands of such a transform, so that it has no one value."""
    return not torch.compiler.is_compiling() and is_functorch_wrapped_tensor(x)


@assume_constant_result
def _transforms(*but: TransformType) -> bool:
    if peek_interpreter_stack() is None:
        return False
    return any(each.key() not in but for each in get_interpreter_stack() or ())


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
        or values_hidden()
    ) and all(
        type(x) in (Tensor, nn.Parameter) and not x.is_neg() and not x._is_zerotensor()
        for x in tensors
    )
