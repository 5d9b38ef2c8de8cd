"""Triton code of fused GPU kernels from a traced step: forward and backward.

A program runs a block of neurons over all time steps, their state in registers. The backward
pass goes back over the steps by stretches: it runs a stretch forward again, from the states at
its start, and keeps what the derivative needs of each step in a scratch array.

Arrays are contiguous. Inputs are (T, M) with their own stride from step to step, 0 if held;
states (M,) with stride 0 if they are one value; parameters of channels (C,), and neuron i is of
channel (i // inner) % channels. Inputs and spikes may be of half precision; what is computed in
between is float32, rounded as IEEE 754 says where torch is. The functions that torch rounds as
it likes are close to it, as far as the GPU's own exp2, log2, sin and cos are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from .derivative import Wanted, derivative, saving
from .expression import Graph
from .trace import Structure


class Source(NamedTuple):
    """A module with a function `kernel`, and the names of that one's arguments, BLOCK aside.

    saved: values a neuron and step that the scratch array has.
    """

    code: str
    arguments: tuple[str, ...]
    saved: int = 0


def forward_source(structure: Structure) -> Source:
    """A kernel that writes spikes, last states, and the states between stretches.

    Arguments: neurons, time_steps, stretch, inner, channels; scalars; x, stride_x of each input;
    s, stride_s, last of each state and its border (stretches - 1, M); spikes; channels of
    each channel parameter that is read.
    """
    graph, states = Graph(structure.nodes), range(len(structure.state))
    step = _Step(graph, {"fired": structure.spikes, **_named("next", structure.state)})
    kernel = _Kernel(step.reads)
    for k in states:
        kernel(f"state{k} = {kernel.values(f's{k}')}")
    with kernel.stretches("number * stretch"):
        for k in states:
            with kernel.block("if first > 0:"):
                kernel(f"tl.store({kernel.row(f'border{k}', 'number - 1')}, state{k}, mask=live)")
        with kernel.block("for t in range(steps):"):
            step.compute(kernel)
            kernel(f"tl.store({kernel.row('spikes', 'first + t')}, fired, mask=live)")
            for k in states:
                kernel(f"state{k} = next{k}")
    for k in states:
        kernel(f"tl.store({kernel.row(f'last{k}')}, state{k}, mask=live)")
    return kernel.source()


def backward_source(structure: Structure, wanted: Wanted) -> Source:
    """A kernel that writes gradients of the wanted inputs and of all first states.

    Arguments as in `forward_source`, but spikes and last; scratch (stretch * saved, M);
    grad_spikes; grad_last, stride_grad_last, grad_s of each state; grad_x of each wanted input;
    grad_channel (M,) of each wanted channel parameter, its gradient by neuron; grad_scalar of
    each wanted scalar, its gradient by program.
    """
    states = range(len(structure.state))
    graph = Graph(structure.nodes)
    grads = derivative(graph, structure, wanted)
    parameters = [f"scalar{k}" for k in wanted.scalars] + [f"channel{k}" for k in wanted.channels]
    names = [*(f"x{k}" for k in wanted.inputs), *(f"s{k}" for k in states), *parameters]
    results = {f"by_{name}": node for name, node in zip(names, grads, strict=True)}
    added = [*(f"x{k}" for k in wanted.held), *parameters]  # up, over all steps
    saved = saving(graph, grads, len(structure.nodes))
    given = {node: f"saved{j}" for j, node in enumerate(saved)}
    given |= {graph("grad_state", value=k): f"grad{k}" for k in states}
    given[graph("grad_spikes")] = "grad_spike"
    again = _Step(graph, _named("saved", saved) | _named("next", structure.state))
    back = _Step(graph, results, given)

    kernel = _Kernel((again.reads if saved else set()) | back.reads)
    for k in states:
        kernel(f"grad{k} = {kernel.values(f'grad_last{k}')}")
    for name in added:
        kernel(f"sum_{name} = tl.full([BLOCK], 0.0, tl.float32)")
    scratch = [kernel.row("scratch", f"t * {len(saved)} + {j}") for j in range(len(saved))]
    with kernel.stretches("(stretches - 1 - number) * stretch"):
        if saved:
            for k in states:
                border = kernel.row(f"border{k}", "stretches - 2 - number")
                with kernel.block("if first > 0:"):
                    kernel(f"state{k} = tl.load({border}, mask=live, other=0.0)")
                with kernel.block("else:"):
                    kernel(f"state{k} = {kernel.values(f's{k}')}")
            with kernel.block("for t in range(steps):"):
                again.compute(kernel)
                for j, place in enumerate(scratch):
                    kernel(f"tl.store({place}, saved{j}, mask=live)")
                for k in states:
                    kernel(f"state{k} = next{k}")
            kernel("tl.debug_barrier()  # what one thread stores, another may load")
        with kernel.block("for ahead in range(steps):"):
            kernel("t = steps - 1 - ahead")
            kernel(f"grad_spike = {kernel.steps('grad_spikes')}")
            for j, place in enumerate(scratch):
                kernel(f"saved{j} = tl.load({place}, mask=live, other=0.0)")
            back.compute(kernel)
            for k in wanted.inputs:
                if k not in wanted.held:
                    row = kernel.row(f"grad_x{k}", "first + t")
                    kernel(f"tl.store({row}, by_x{k}, mask=live)")
            for name in added:
                kernel(f"sum_{name} += by_{name}")
            for k in states:
                kernel(f"grad{k} = by_s{k}")
        if saved:
            kernel("tl.debug_barrier()  # before the next stretch takes its place")
    for k in states:
        kernel(f"tl.store({kernel.row(f'grad_s{k}')}, grad{k}, mask=live)")
    for name in added:
        if name.startswith("scalar"):
            total = f"tl.sum(tl.where(live, sum_{name}, 0.0), 0)"
            kernel(f"tl.store({kernel.argument(f'grad_{name}')} + tl.program_id(0), {total})")
        else:
            kernel(f"tl.store({kernel.row(f'grad_{name}')}, sum_{name}, mask=live)")
    return kernel.source(len(saved))


class _Step:
    """Computes nodes, by the names of their results, from what is given by name or read.

    reads: what it reads besides, as (op, which of them).
    """

    def __init__(
        self, graph: Graph, results: dict[str, int], given: dict[int, str] | None = None
    ) -> None:
        self._graph, self._results, self._given = graph, results, given or {}
        self._needed = graph.needed(results.values(), self._given)
        self.reads = {graph.nodes[i][::2] for i in self._needed if i not in self._given}

    def compute(self, kernel: _Kernel) -> None:
        """Its code, at step first + t."""
        names = dict(self._given)
        for i in self._needed:
            op, _, value = self._graph.nodes[i]
            if i in names:
                continue
            if op in ("state", "scalar", "channel"):
                names[i] = f"{op}{int(value)}"
                continue
            names[i] = f"n{i}"
            if op == "input":
                kernel(f"n{i} = {kernel.steps(f'x{int(value)}')}")
            elif op == "number":
                kernel(f"n{i} = tl.full([BLOCK], {float(value)!r}, tl.float32)")
            else:
                operands = [names[k] for k in self._graph.arguments(i)]
                kernel(f"n{i} = {OPERATIONS[op].format(*operands)}")
        for name, i in self._results.items():
            kernel(f"{name} = {names[i]}")


class _Kernel:
    """The lines of a kernel under construction, and the arguments that they came to name."""

    def __init__(self, reads: set[tuple[str, float]]) -> None:
        self._indent = 1
        self._lines: list[str] = []
        self._arguments = {"neurons": "neurons: tl.int64"}
        self("i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)")
        self("live = i < neurons")
        for op, value in sorted(reads):
            k = int(value)
            if op == "scalar":
                one = f"tl.load({self.argument('scalars')} + {k})"
                self(f"scalar{k} = tl.broadcast_to({one}, [BLOCK])")
            elif op == "channel":
                place = f"i // {self.argument('inner')} % {self.argument('channels')}"
                self(f"channel{k} = tl.load({self.argument(f'channels{k}')} + {place})")

    def __call__(self, line: str) -> None:
        self._lines.append("    " * self._indent + line)

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """Lines within a loop or a branch."""
        self(head)
        self._indent += 1
        yield
        self._indent -= 1

    @contextmanager
    def stretches(self, first: str) -> Iterator[None]:
        """Loops over stretches: the one at hand starts at step `first` and has `steps`."""
        steps, stretch = self.argument("time_steps"), self.argument("stretch")
        self(f"stretches = ({steps} + {stretch} - 1) // stretch")
        with self.block("for number in range(stretches):"):
            self(f"first = {first}")
            self("steps = tl.minimum(stretch, time_steps - first)")
            yield

    def argument(self, name: str) -> str:
        """The argument of that name; offsets that go with time are wide."""
        wide = name.startswith("stride_x") or name == "stride_grad_spikes"
        self._arguments[name] = f"{name}: tl.int64" if wide else name
        return name

    def row(self, array: str, t: str = "") -> str:
        """The block's places in (M,), or in row t of (T, M)."""
        row = f" + ({t}) * neurons" if t else ""
        return f"{self.argument(array)}{row} + i"

    def steps(self, array: str) -> str:
        """The block's values at step first + t, from an array that may be held."""
        place = f"{self.argument(array)} + (first + t) * {self.argument(f'stride_{array}')} + i"
        return f"tl.load({place}, mask=live, other=0.0).to(tl.float32)"

    def values(self, array: str) -> str:
        """The block's values, from an array that may be one value."""
        place = f"{self.argument(array)} + i * {self.argument(f'stride_{array}')}"
        return f"tl.load({place}, mask=live, other=0.0)"

    def source(self, saved: int = 0) -> Source:
        """The kernel, now that it is complete."""
        head = f"def kernel({', '.join(self._arguments.values())}, BLOCK: tl.constexpr):"
        code = "\n".join([_PREAMBLE, _DECORATOR, head, *self._lines, ""])
        return Source(code, tuple(self._arguments), saved)


def _named(prefix: str, nodes: Iterable[int]) -> dict[str, int]:
    return {f"{prefix}{k}": node for k, node in enumerate(nodes)}


# Per op of `expression`: its formula. A quotient with `/`, or a square root with `tl.sqrt`, would
# be rounded as the GPU likes; -x would make 0 of -0.
OPERATIONS = {
    "add": "{} + {}",
    "sub": "{} - {}",
    "mul": "{} * {}",
    "div": "tl.div_rn({}, {})",
    "neg": "{} * -1.0",
    "abs": "tl.abs({})",
    "exp": "tl.exp({})",
    "log": "tl.log({})",
    "sqrt": "tl.sqrt_rn({})",
    "sin": "tl.sin({})",
    "cos": "tl.cos({})",
    "tanh": "tanh({})",
    "sigmoid": "tl.div_rn(1.0, 1.0 + tl.exp({} * -1.0))",
    "floor": "tl.floor({})",
    "ceil": "tl.ceil({})",
    "round": "half_to_even({})",
    "sign": "tl.where({0} > 0.0, 1.0, 0.0) - tl.where({0} < 0.0, 1.0, 0.0)",
    "pow": "power({}, {})",
    "maximum": "tl.where(({0} > {1}) | ({0} != {0}), {0}, {1})",  # NaN if one is
    "minimum": "tl.where(({0} < {1}) | ({0} != {0}), {0}, {1})",
    "relu": "tl.where({0} < 0.0, 0.0, {0})",
    "clamp_min": "tl.where({0} < {1}, {1}, {0})",
    "clamp_max": "tl.where({0} > {1}, {1}, {0})",
    "where": "tl.where({}, {}, {})",
    "gt": "{} > {}",
    "ge": "{} >= {}",
    "lt": "{} < {}",
    "le": "{} <= {}",
    "eq": "{} == {}",
    "ne": "{} != {}",
    "and": "{} & {}",
    "or": "{} | {}",
    "xor": "{} ^ {}",
    "not": "~{}",
    "float": "{}.to(tl.float32)",
    "spike": "tl.where({} > 0.0, 1.0, 0.0)",
    "detach": "{}",
    "stand_in": "{}",
    "chip_decay": "chip_decay({}, {})",
}

_PREAMBLE = """import triton
import triton.language as tl


@triton.jit
def half_to_even(x):
    size = tl.abs(x)
    # Above 2**23 there are no fractions; adding it leaves no place for them.
    whole = tl.where(size < 8388608.0, (size + 8388608.0) - 8388608.0, size)
    return tl.where(x < 0.0, whole * -1.0, whole)


@triton.jit
def tanh(x):
    e = tl.exp(tl.abs(x) * -2.0)
    far = tl.div_rn(1.0 - e, 1.0 + e)
    square = x * x
    near = x * (1.0 + square * (-0.33333334 + square * 0.13333334))  # its Taylor series
    return tl.where(tl.abs(x) < 0.1, near, tl.where(x < 0.0, far * -1.0, far))


@triton.jit
def power(x, exponent):
    size = tl.where(exponent == 0.0, 1.0, tl.exp2(exponent * tl.log2(tl.abs(x))))
    half = exponent * 0.5
    odd = (tl.floor(half) != half) & (x < 0.0)
    broken = (tl.floor(exponent) != exponent) & (x < 0.0)
    return tl.where(broken, float("nan"), tl.where(odd, size * -1.0, size))


@triton.jit
def chip_decay(x, decay):
    # As `neuron.chip` has it: whole numbers, exact in double precision.
    kept = x.to(tl.float64) * (4096.0 - decay.to(tl.float64) * 4096.0)
    whole = tl.where(kept < 0.0, tl.ceil(kept), tl.floor(kept))
    return (whole * 0.000244140625).to(tl.float32)

"""
_DECORATOR = '@triton.jit(do_not_specialize=["time_steps", "stretch"])'
