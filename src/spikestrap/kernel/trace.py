"""Traces a neuron's `step` into a graph of expressions, by running it once.

The step runs on a tiny input of zeros, (1, C, 1, ...), with its true parameters, and every
torch function it calls is seen. What depends on z, the state or an extra becomes a node;
what depends on parameters alone, `1 - decay` say, is computed there and then by torch, and
is an input of the graph, through which autograd goes on to the parameters. So a trace holds
for one forward pass; `replay` says which may be kept.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.overrides import TorchFunctionMode

from .expression import COMPARISONS, Graph, Node
from .reference import State, Step


class Untraceable(Exception):
    """The step holds something that cannot be compiled; the message says what."""


@dataclass(frozen=True)
class Structure:
    """A step without its values: two steps with equal structures share their kernel.

    spikes, state: the nodes of what the step returns. inputs, scalars, channels: how many
    there are of each.
    """

    nodes: tuple[Node, ...]
    spikes: int
    state: tuple[int, ...]
    inputs: int
    scalars: int
    channels: int

    @property
    def is_binary(self) -> bool:
        """Whether what the step returns as spikes is 0 or 1, as can be seen from how it is made."""

        def binary(i: int) -> bool:
            op, args, value = self.nodes[i]
            if op == "number":
                return value in (0, 1)
            if op in ("mul", "where"):  # the condition aside
                return all(map(binary, args[-2:]))
            return op in ("spike", "float")

        return binary(self.spikes)


@dataclass(frozen=True)
class Trace:
    """A structure and the values of its parameters.

    scalars: tensors of one element, or numbers. channels: tensors of C elements.
    """

    structure: Structure
    scalars: list[Tensor]
    channels: list[Tensor]

    @functools.cached_property
    def number(self) -> int:
        """By which the operators know the structure."""
        return number_of(self.structure)

    @functools.cached_property
    def packed(self) -> Tensor:
        """All scalars in one tensor, without a gradient, as they are when it is first asked for."""
        return in_one(self.scalars)


_structures: list[Structure] = []
_numbers: dict[Structure, int] = {}
_lock = threading.RLock()


def number_of(structure: Structure) -> int:
    """The number by which the operators know a structure, the same for equal ones."""
    with _lock:
        if structure not in _numbers:
            _numbers[structure] = len(_structures)
            _structures.append(structure)
        return _numbers[structure]


def structure_of(number: int) -> Structure:
    """The structure of that number."""
    return _structures[number]


def in_one(scalars: Sequence[Tensor]) -> Tensor:
    """Tensors of one element in one (n,), without a gradient."""
    return torch.cat([p.detach().reshape(-1) for p in scalars])


def trace(step: Step, z: Tensor, state: State, extra: tuple[Tensor, ...] = ()) -> Trace:
    """The trace of `step` for one step's z, state and extras, each (N, C, ...).

    Only their shapes and dtypes matter. Raises Untraceable.

    >>> decay = torch.tensor(0.1)
    >>> leak = lambda z, state: (z, ((1 - decay) * state[0] + z,))
    >>> traced = trace(leak, torch.zeros(2, 3), (torch.zeros(2, 3),))
    >>> [node.op for node in traced.structure.nodes], traced.scalars
    (['input', 'state', 'scalar', 'mul', 'add'], [tensor(0.9000)])
    """
    shape = z.shape
    for name, parts in (("the state", state), ("an extra", extra)):
        for part in parts:
            if part.shape != shape or part.dtype is not torch.float32:
                raise Untraceable(
                    f"{name} of shape {tuple(part.shape)} and {part.dtype} "
                    f"with z of shape {tuple(shape)}"
                )
    tiny = tuple(size if axis == 1 else 1 for axis, size in enumerate(shape))
    recorder = _Recorder(tiny, z.device)
    inputs = [recorder.read("input", k) for k in range(1 + len(extra))]
    states = tuple(recorder.read("state", k) for k in range(len(state)))
    with _attributes_kept(step), recorder:
        returned = step(inputs[0], states, *inputs[1:])
    return recorder.finish(returned, len(state), 1 + len(extra))


@contextmanager
def _attributes_kept(step: Step) -> Iterator[None]:
    """Undoes what the step does to its module's attributes, and then raises."""
    owner = getattr(step, "__self__", None)
    if not isinstance(owner, nn.Module):
        yield
        return
    kept = [(names, dict(names)) for names in (vars(owner), owner._buffers)]
    yield
    for names, before in kept:
        if names.keys() != before.keys() or any(names[k] is not v for k, v in before.items()):
            names.clear()
            names.update(before)
            raise Untraceable("a step that sets attributes of its neuron")


def _number(value: Any) -> bool:
    return isinstance(value, bool | int | float)


class _Recorder(TorchFunctionMode):
    """Sees each call of a torch function, runs it, and records what it means."""

    def __init__(self, shape: tuple[int, ...], device: torch.device) -> None:
        super().__init__()
        self.shape, self.device = shape, device
        self.trains = torch.is_grad_enabled()
        self.graph = Graph()
        self.scalars: list[Tensor] = []
        self.channels: list[Tensor] = []
        self._nodes: dict[int, int] = {}  # of tensors, by their id
        self._parameters: dict[int, int] = {}  # the same for parameters
        self._numbers: dict[float, int] = {}
        self._alive: list[Tensor] = []  # so that no id is given twice

    def read(self, op: str, k: int) -> Tensor:
        # With a gradient, so that a derivative of one's own shows in what comes of it.
        grad = torch.is_grad_enabled()
        tensor = torch.zeros(
            self.shape, dtype=torch.float32, device=self.device, requires_grad=grad
        )
        return self._track(tensor, self.graph(op, value=k))

    def finish(self, returned: Any, states: int, inputs: int) -> Trace:
        try:
            spikes, state = returned
            state = tuple(state)
        except (TypeError, ValueError):
            raise Untraceable("a step that does not return (spikes, state)") from None
        if len(state) != states:
            raise Untraceable(f"a step that returns {len(state)} states for {states}")
        for part in (spikes, *state):
            if not isinstance(part, Tensor) or part.shape != self.shape:
                got = tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__
                raise Untraceable(f"a result not shaped like z: {got}")
        if any(part.dtype is not torch.float32 for part in state):
            raise Untraceable("a state that is not float32 after the step")
        out = self.graph.as_float(self._node(spikes))
        state = tuple(self._node(part) for part in state)
        structure = Structure(
            tuple(self.graph.nodes), out, state, inputs, len(self.scalars), len(self.channels)
        )
        return Trace(structure, self.scalars, self.channels)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name, attribute, refused = _facts(func)
        if attribute is not None:
            if attribute not in _ATTRIBUTES and self._tracked(args[0]):
                raise Untraceable(f"Tensor.{attribute}")
            return func(*args, **kwargs)
        if refused:
            raise Untraceable(refused)
        of_parameter = name in _CONVERSIONS and not self._tracked(args[0])
        asked = name in _QUERIES and not _any_tracked(self, args[1:], kwargs)
        if asked or of_parameter or not _any_tracked(self, args, kwargs):
            return func(*args, **kwargs)
        if name == "__bool__":
            raise Untraceable("a Python branch on the values of a tensor")
        if name not in _HANDLERS:
            raise Untraceable(name)
        handler = _HANDLERS[name]
        taken = _takes(handler, self, *args, **kwargs)
        handled = handler(self, *args, **kwargs) if taken else None
        if handled is None:
            raise Untraceable(f"{name} with these arguments")
        result, node = handled if isinstance(handled, tuple) else (func(*args, **kwargs), handled)
        expected = torch.bool if self.graph.nodes[node].is_bool else torch.float32
        if result.dtype is not expected:
            raise Untraceable(f"{name} giving {result.dtype}")
        stops = self.trains and not torch.is_grad_enabled()
        if stops and not self.graph.nodes[node].is_bool:
            node = self.graph("detach", node)
        return self._track(result, node)

    def _track(self, tensor: Tensor, node: int) -> Tensor:
        if id(tensor) in self._nodes and self._nodes[id(tensor)] != node:
            # `x.float()` of a float is x itself, so a new meaning needs a new tensor.
            tensor = tensor.view_as(tensor)
        self._nodes[id(tensor)] = node
        self._alive.append(tensor)
        return tensor

    def _tracked(self, value: Any) -> bool:
        return isinstance(value, Tensor) and id(value) in self._nodes

    def _node(self, value: Any) -> int:
        """The node of a tensor or number: what is not tracked is a parameter."""
        if isinstance(value, Tensor):
            if id(value) not in self._nodes:
                return self._parameter(value)
            if isinstance(value.grad_fn, BackwardCFunction):
                made = type(value.grad_fn).__name__.removesuffix("Backward")
                raise Untraceable(f"{made}, an autograd.Function")
            return self._nodes[id(value)]
        if not _number(value):
            raise Untraceable(f"an argument of type {type(value).__name__}")
        # Numbers that are part of a formula; others may vary and would need a kernel each.
        if float(value).is_integer() and abs(value) <= 16:
            return self.graph.number(value)
        if value not in self._numbers:
            one = torch.full((), float(value), dtype=torch.float32, device=self.device)
            self._numbers[value] = self._scalar(one)
        return self._numbers[value]

    def _scalar(self, value: Tensor) -> int:
        self.scalars.append(value)
        return self.graph("scalar", value=len(self.scalars) - 1)

    def _parameter(self, value: Tensor) -> int:
        if id(value) not in self._parameters:
            self._parameters[id(value)] = self._read_parameter(value)
            self._alive.append(value)
        return self._parameters[id(value)]

    def _read_parameter(self, value: Tensor) -> int:
        if value.is_complex() or (value.dtype is torch.float64 and value.ndim):
            raise Untraceable(f"a parameter of {value.dtype}")
        as_float = value.to(self.device, torch.float32)
        if value.numel() == 1:
            node = self._scalar(as_float)
        else:
            padded = (1,) * (len(self.shape) - value.ndim) + tuple(value.shape)
            if padded != self.shape or len(self.shape) < 2:
                raise Untraceable(
                    f"a parameter of shape {tuple(value.shape)}: neither one value nor one a "
                    f"channel of {self.shape}"
                )
            self.channels.append(as_float)
            node = self.graph("channel", value=len(self.channels) - 1)
        return self.graph.as_bool(node) if value.dtype is torch.bool else node

    def floats(self, *values: Any) -> list[int]:
        return [self.graph.as_float(self._node(value)) for value in values]


@functools.cache
def _facts(func: Any) -> tuple[str, str | None, str]:
    """A torch function's name, which attribute it gets if it does, and why it is refused."""
    name = getattr(func, "__name__", str(func))
    if name == "__get__":
        return name, getattr(getattr(func, "__self__", None), "__name__", ""), ""
    refused = ""
    if name in _RANDOM:
        refused = f"{name}, which is random: draw noise in `extra`"
    elif (name.endswith("_") and not name.startswith("__")) or name in _IN_PLACE:
        refused = f"{name}, which works in place"
    return name, None, refused


_signature = functools.cache(inspect.signature)


def _takes(handler: Handler, *args: Any, **kwargs: Any) -> bool:
    """Whether a call fits; to try it might take a TypeError from within for one that does not."""
    try:
        _signature(handler).bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def _any_tracked(recorder: _Recorder, args: Any, kwargs: dict[str, Any]) -> bool:
    for value in (*args, *kwargs.values()):
        if recorder._tracked(value):
            return True
        if isinstance(value, list | tuple) and _any_tracked(recorder, value, {}):
            return True
    return False


# What may be asked of a tensor without computing anything.
_ATTRIBUTES = {"shape", "dtype", "device", "ndim", "layout", "requires_grad", "is_cuda"}
_QUERIES = {"size", "dim", "ndimension", "is_floating_point", "new_zeros", "new_ones", "new_full"}
_CONVERSIONS = {"to", "type_as", "expand_as", "view_as", "float", "bool"}
_RANDOM = (
    *("rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like"),
    *("bernoulli", "normal", "poisson", "multinomial", "dropout", "alpha_dropout"),
)
_IN_PLACE = (
    *("__setitem__", "__iadd__", "__isub__", "__imul__", "__idiv__", "__itruediv__"),
    *("__iand__", "__ior__", "__ixor__", "__ipow__", "__ifloordiv__", "__imod__"),
)

# Per name of a torch function: (recorder, *its arguments) to the node of its result; or to
# (result, node); or None where the arguments ask for something that is not known here.
Handler = Callable[..., Any]


def _binary(op: str, swapped: bool = False) -> Handler:
    def handler(r: _Recorder, a: Any, b: Any, *, alpha: Any = 1) -> int | None:
        if alpha != 1:  # torch may then round once, not twice
            return None
        first, second = r.floats(a, b)
        return r.graph(op, second, first) if swapped else r.graph(op, first, second)

    return handler


def _unary(op: str) -> Handler:
    return lambda r, a: r.graph(op, *r.floats(a))


def _relu(r: _Recorder, a: Any, inplace: bool = False) -> int | None:
    return None if inplace else r.graph("relu", *r.floats(a))


def _compare(op: str) -> Handler:
    return lambda r, a, b: r.graph(op, *r.floats(a, b))


def _logic(op: str, bool_only: bool) -> Handler:
    def handler(r: _Recorder, *values: Any) -> int | None:
        nodes = [r._node(value) for value in values]
        if bool_only and not all(r.graph.nodes[node].is_bool for node in nodes):
            return None
        return r.graph(op, *(r.graph.as_bool(node) for node in nodes))

    return handler


def _mul(r: _Recorder, a: Any, b: Any) -> int:
    nodes = [r._node(a), r._node(b)]
    if all(r.graph.nodes[node].is_bool for node in nodes):
        return r.graph("and", *nodes)
    return r.graph("mul", *(r.graph.as_float(node) for node in nodes))


def _rdiv(r: _Recorder, a: Any, b: Any) -> int:
    """b / a, in torch's rounding: b times the reciprocal of a."""
    reciprocal = r.graph("div", r.graph.number(1), *r.floats(a))
    return r.graph("mul", reciprocal, *r.floats(b))


def _div(r: _Recorder, a: Any, b: Any, *, rounding_mode: Any = None) -> int | None:
    if rounding_mode:
        return None
    on_host = _number(b) or (b.ndim == 0 and b.device.type == "cpu" and not r._tracked(b))
    if on_host and r.device.type == "cuda":  # torch then multiplies by the reciprocal
        return r.graph("mul", *r.floats(a), r.graph("div", r.graph.number(1), *r.floats(b)))
    return r.graph("div", *r.floats(a, b))


def _pow(r: _Recorder, a: Any, exponent: Any) -> int | None:
    if not _number(exponent):
        return None
    (base,) = r.floats(a)
    if exponent == 2:
        return r.graph("mul", base, base)
    if exponent == 0.5:
        return r.graph("sqrt", base)
    return r.graph("pow", base, r.graph.number(exponent))


def _clamp(r: _Recorder, a: Any, min: Any = None, max: Any = None) -> int | None:
    if any(isinstance(bound, Tensor) for bound in (min, max)):
        return None
    (node,) = r.floats(a)
    if min is not None:
        node = r.graph("clamp_min", node, *r.floats(min))
    if max is not None:
        node = r.graph("clamp_max", node, *r.floats(max))
    return node


def _where(r: _Recorder, condition: Any, a: Any = None, b: Any = None) -> int | None:
    chosen = r._node(condition)
    if a is None or b is None or not r.graph.nodes[chosen].is_bool:
        return None
    return r.graph("where", chosen, *r.floats(a, b))


def _to(r: _Recorder, a: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, int]:
    result = a.to(*args, **kwargs)
    node = r._node(a)
    if result.dtype is torch.bool:
        return result, r.graph.as_bool(node)
    return result, r.graph.as_float(node)


def _filled(value: float) -> Handler:
    def handler(r: _Recorder, a: Tensor, *, dtype: Any = None, device: Any = None) -> Any:
        return torch.full_like(a, value, dtype=dtype), r.graph.number(value)

    return handler


def _full_like(
    r: _Recorder, a: Tensor, fill_value: Any, *, dtype: Any = None, device: Any = None
) -> Any:
    return torch.full_like(a, fill_value, dtype=dtype), *r.floats(fill_value)


def _spike(r: _Recorder, over: Tensor, tau: Tensor, surrogate: Any, scale: float) -> Any:
    with r:
        slope = scale / (2 * tau) * surrogate.h(over / tau)
    node = r.graph("spike", *r.floats(over, slope))
    return (over > 0).to(over.dtype), node


def _chip_decay(r: _Recorder, x: Tensor, decay: Tensor) -> Any:
    with r:
        smooth = x * (1 - decay)
    exact = r.graph("chip_decay", *r.floats(x, decay))
    return smooth, r.graph("stand_in", exact, r._node(smooth))


def _straight_through(
    r: _Recorder, x: Tensor, function: Callable[..., Tensor], *arguments: float
) -> Any:
    with r:
        value = function(x, *arguments)
    return value, r.graph("stand_in", r._node(value), *r.floats(x))


def _same(r: _Recorder, a: Tensor, *args: Any, **kwargs: Any) -> int:
    return r._node(a)


_HANDLERS: dict[str, Handler] = {
    "add": _binary("add"),
    "sub": _binary("sub"),
    "subtract": _binary("sub"),
    "rsub": _binary("sub", swapped=True),
    "__rsub__": _binary("sub", swapped=True),
    "mul": _mul,
    "multiply": _mul,
    "div": _div,
    "divide": _div,
    "true_divide": _div,
    "__rdiv__": _rdiv,
    "reciprocal": lambda r, a: r.graph("div", r.graph.number(1), *r.floats(a)),
    "pow": _pow,
    "__pow__": _pow,
    "square": lambda r, a: _pow(r, a, 2),
    "neg": _unary("neg"),
    "negative": _unary("neg"),
    "absolute": _unary("abs"),
    "relu": _relu,
    "clamp": _clamp,
    "clip": _clamp,
    "clamp_min": lambda r, a, min: _clamp(r, a, min),
    "clamp_max": lambda r, a, max: _clamp(r, a, None, max),
    "where": _where,
    "maximum": _binary("maximum"),
    "minimum": _binary("minimum"),
    "greater": _compare("gt"),
    "greater_equal": _compare("ge"),
    "less": _compare("lt"),
    "less_equal": _compare("le"),
    "not_equal": _compare("ne"),
    "__and__": _logic("and", True),
    "__or__": _logic("or", True),
    "__xor__": _logic("xor", True),
    "__invert__": _logic("not", True),
    "bitwise_and": _logic("and", True),
    "bitwise_or": _logic("or", True),
    "bitwise_not": _logic("not", True),
    "logical_and": _logic("and", False),
    "logical_or": _logic("or", False),
    "logical_xor": _logic("xor", False),
    "logical_not": _logic("not", False),
    "detach": lambda r, a: (a.detach(), r.graph("detach", r._node(a))),
    "to": _to,
    "type_as": _to,
    "float": lambda r, a: _to(r, a, torch.float32),
    "bool": lambda r, a: _to(r, a, torch.bool),
    "zeros_like": _filled(0),
    "ones_like": _filled(1),
    "full_like": _full_like,
    "clone": _same,
    "contiguous": _same,
    "expand_as": _same,
    "fire": _spike,
    "chip_decay": _chip_decay,
    "straight_through": _straight_through,
}
_HANDLERS |= {op: _compare(op) for op in COMPARISONS}
_HANDLERS |= {f"__{op}__": _compare(op) for op in COMPARISONS}
_HANDLERS |= {
    op: _unary(op)
    for op in (
        *("abs", "exp", "log", "sqrt", "sin", "cos", "tanh", "sigmoid"),
        *("floor", "ceil", "round", "sign"),
    )
}
