"""Does averaging over time commute with what a model does between its neurons?

In a first pass every torch operation of the model is looked at. What comes from spikes is
marked, and so is what is computed from that; an operation that is not linear in marked
tensors is refused, with its place in the model. Membranes are marked too, as such: they
have no counterpart among rates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_iter

from ..errors import SpikestrapError

Call = Callable[..., Any]
_MARK = "_spikestrap_origin"
_NORMS = {"layer_norm", "group_norm", "instance_norm", "rms_norm", "local_response_norm"}
_MAXIMA = {
    *(f"{kind}_pool{d}d" for kind in ("max", "adaptive_max") for d in "123"),
    *(f"{kind}_pool{d}d_with_indices" for kind in ("max", "adaptive_max") for d in "123"),
    *("fractional_max_pool2d", "fractional_max_pool3d"),
    *("max", "min", "amax", "amin", "maximum", "minimum", "sort", "topk", "median", "argmax"),
}  # fmt: skip
_NONLINEAR = {
    *("relu", "relu6", "leaky_relu", "prelu", "rrelu", "elu", "celu", "selu", "gelu", "silu"),
    *("mish", "glu", "softplus", "softsign", "softmin", "softmax", "log_softmax", "logsigmoid"),
    *("gumbel_softmax", "sigmoid", "hardsigmoid", "tanh", "hardtanh", "hardswish", "hardshrink"),
    *("softshrink", "tanhshrink", "threshold", "clamp", "clamp_min", "clamp_max", "clip", "abs"),
    *("exp", "log", "log1p", "sqrt", "rsqrt", "square", "pow", "__pow__", "reciprocal", "sign"),
    *("floor", "ceil", "round", "trunc", "straight_through", "sin", "cos", "norm", "normalize"),
    *("logsumexp", "std", "var", "prod", "cross_entropy", "nll_loss", "mse_loss"),
    *("multi_head_attention_forward", "scaled_dot_product_attention"),
}
_THRESHOLDS = {"ge", "gt", "le", "lt", "heaviside"}
# Linear in each of their factors, but not in two at a time.
_PRODUCTS = {
    *("mul", "multiply", "__mul__", "__rmul__", "matmul", "__matmul__", "__rmatmul__", "mm"),
    *("bmm", "baddbmm", "einsum", "tensordot", "outer", "dot", "mv", "linear", "bilinear"),
    *("conv1d", "conv2d", "conv3d"),
}
_QUOTIENTS = {"div", "divide", "true_divide", "__truediv__", "__rtruediv__", "__rdiv__"}
# What depends on no value of its tensors.
_SHAPES = {
    *(f"{kind}_like" for kind in ("empty", "zeros", "ones", "full", "rand", "randn")),
    *(f"new_{kind}" for kind in ("empty", "zeros", "ones", "full", "tensor")),
}
_IN_PLACE = {"__setitem__", "copy_", "index_copy_", "index_add_", "scatter_", "scatter_add_"}


class Commutes(TorchFunctionMode):
    """While active, refuses what does not commute; `around` says where spikes come from."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._names = {module: name for name, module in model.named_modules()}
        self._inside: list[str] = []
        self._paused = False
        self._hooks: list[Any] = []

    def __enter__(self) -> Commutes:
        for module, name in self._names.items():
            self._hooks.append(module.register_forward_pre_hook(self._enterer(name)))
            self._hooks.append(module.register_forward_hook(self._leave, always_call=True))
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for hook in self._hooks:
            hook.remove()

    def _enterer(self, name: str) -> Any:
        return lambda module, args: self._inside.append(name)

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self._inside.pop()

    def around(self, call: Call, name: str, states: Callable[[], Any]) -> Call:
        """A neuron's call: unwatched inside; its spikes and its states are marked."""

        def forward(*args: Any, **kwargs: Any) -> Any:
            self._paused = True
            try:
                output = call(*args, **kwargs)
            finally:
                self._paused = False
            spikes, *hidden = output if isinstance(output, tuple) else (output,)
            for tensor in _tensors((hidden, states())):
                _set_mark(tensor, (f"the membrane of {name!r}", True))
            _set_mark(spikes, (f"the spikes of {name!r}", False))
            return output

        return forward

    def over_time(self, sequence: Tensor) -> Tensor:
        """An input over time, marked as such; the caller's tensor is not."""
        alias = sequence.view_as(sequence)
        _set_mark(alias, ("the input over time", False))
        return alias

    @staticmethod
    def check_output(output: Tensor) -> None:
        """Refuses an output that is read from a membrane, or comes from no spikes."""
        mark = _mark_of(output)
        if mark is None:
            raise SpikestrapError(
                "bootstrap: the model's output does not come from the spikes of a wrapped neuron "
                "by operations that can be followed: is there a neuron that is a function? "
                "check=False switches this check off"
            )
        name, is_membrane = mark
        if is_membrane:
            raise SpikestrapError(
                f"bootstrap: the model's output is computed from {name}, which an ANN on "
                "rates does not have: read the spikes out, or the linear layer before it"
            )

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if self._paused or name in _SHAPES:
            return result
        marks = [mark for t in _tensors((args, kwargs)) if (mark := _mark_of(t)) is not None]
        if not marks:
            return result
        # One membrane is enough to spoil a result.
        mark = max(marks, key=lambda mark: mark[1])
        if not mark[1]:
            self._refuse(name, args, mark[0])
        if name in _IN_PLACE:
            _set_mark(args[0], mark)
        for tensor in _tensors(result):
            _set_mark(tensor, mark)
        return result

    def _refuse(self, func: str, args: Any, origin: str) -> None:
        name = func[:-1] if func.endswith("_") and not func.endswith("__") else func
        if name in _MAXIMA:
            why = "the maximum of rates is not the rate of the maximum; pool by the average"
        elif name in _NORMS:
            why = "its statistics are nonlinear in the spikes; use batch norm"
        elif name.startswith("lp_pool"):
            if args[1] == 1:
                return
            why = "it is not linear"
        elif name in _NONLINEAR:
            why = "it is not linear; leave it to the neuron, or to the loss"
        elif name in _THRESHOLDS:
            why = "a neuron that is a function cannot be wrapped; make it a module"
        elif name in _PRODUCTS and sum(_mark_of(t) is not None for t in _tensors(args)) > 1:
            why = "the mean of a product is not the product of the means"
        elif name in _QUOTIENTS and (name.startswith("__r") or _is_marked(args[1:])):
            why = "the mean of a quotient is not the quotient of the means"
        else:
            return
        place = next((n for n in reversed(self._inside) if n), "")
        where = f"in {place!r}" if place else "in the model's forward"
        raise SpikestrapError(
            f"bootstrap: {func} {where}, on what comes from {origin}, does not "
            f"commute with averaging over time: {why}"
        )


def _tensors(tree: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_iter(tree) if isinstance(leaf, Tensor))


def _set_mark(tensor: Tensor, mark: tuple[str, bool]) -> None:
    tensor.__dict__[_MARK] = mark


def _mark_of(tensor: Tensor) -> tuple[str, bool] | None:
    mark: tuple[str, bool] | None = tensor.__dict__.get(_MARK)
    return mark


def _is_marked(tree: Any) -> bool:
    return any(_mark_of(t) is not None for t in _tensors(tree))
