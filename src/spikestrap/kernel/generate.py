"""LLVM code of fused CPU kernels from a traced step: forward and backward.

Neurons are independent, so they are cut into blocks that threads share out; inside a block,
time is the outer loop and the state stays in cache. The backward pass runs
the block forward again rather than store what the derivative needs.

A step over a block's neurons is a function of its own, of nothing but rows of floats that do
not overlap, which is what LLVM must know to vectorize it. Around it, a kernel is a function

    kernel(first, end, arguments, workspace, totals)

that runs the blocks from first up to end. `arguments` points to 64-bit numbers: sizes, and
addresses of arrays. Inputs are (T, M) with their own stride from step to step, 0 if held;
states (M,) with stride 0 if they are one value; parameters of channels are laid out for as
many neurons as one sample has, and a block's width beyond, so that any block reads a row.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple

from llvmlite import ir

from .derivative import Wanted, derivative, saving
from .expression import Graph
from .trace import Structure
from .vector import BYTE, FLOAT, INDEX, OPERATIONS, number

_POINTER, _DOUBLE = ir.PointerType(), ir.DoubleType()


class Source(NamedTuple):
    """A kernel: its code, the names of its arguments in order, and the workspace that it needs.

    saved: rows a time step. rows: those in front of them.
    """

    code: str
    arguments: tuple[str, ...]
    saved: int = 0
    rows: int = 0


def forward_source(structure: Structure) -> Source:
    """A kernel that writes spikes and last states.

    Arguments: time_steps, neurons, width, period, scalars; x, stride_x of each input; s,
    stride_s, last of each state; spikes; channel of each channel parameter that is read.
    """
    graph, states = Graph(structure.nodes), range(len(structure.state))
    read = _Read(graph, (structure.spikes, *structure.state))
    kernel = _Kernel("forward")
    step = _Step(kernel, "step", read)
    step.writes(graph, {"spikes": structure.spikes, **_named("state", structure.state)})

    with kernel.blocks():
        rows = {f"state{k}": kernel.row(f"last{k}") for k in states}
        for k in states:
            kernel.copy(f"s{k}", rows[f"state{k}"])
        rows |= kernel.channels(read)
        with kernel.loop(kernel.argument("time_steps")) as t:
            step.call(rows | kernel.inputs(read, t) | {"spikes": kernel.row("spikes", t)})
    return kernel.source()


def inference_source(structure: Structure, counted: bool) -> Source:
    """A kernel that writes spikes as bytes of 0 or 1; or, counted, how often each neuron fired.

    Arguments as in `forward_source`, but last; counts, floats (M,), for spikes if counted. The
    workspace has a row for each state.
    """
    graph, states = Graph(structure.nodes), range(len(structure.state))
    read = _Read(graph, (structure.spikes, *structure.state))
    kernel = _Kernel("inference")
    step = _Step(kernel, "step", read)
    after = _named("state", structure.state)
    if counted:
        step.writes(graph, after, {"counts": structure.spikes})
    else:
        step.bytes = {"spikes"}
        step.writes(graph, after | {"spikes": structure.spikes})

    with kernel.blocks():
        rows = {f"state{k}": kernel.workspace(k) for k in states}
        for k in states:
            kernel.copy(f"s{k}", rows[f"state{k}"])
        rows |= kernel.channels(read)
        if counted:
            rows["counts"] = kernel.row("counts")
            kernel.clear(rows["counts"])
        with kernel.loop(kernel.argument("time_steps")) as t:
            if not counted:
                rows["spikes"] = kernel.row("spikes", t, BYTE)
            step.call(rows | kernel.inputs(read, t))
    return kernel.source(rows=len(states))


def backward_source(structure: Structure, wanted: Wanted) -> Source:
    """A kernel that writes gradients of the wanted inputs and of all first states.

    Arguments as in `forward_source`, but spikes and last; grad_spikes; grad_last,
    stride_grad_last, grad_s of each state; grad_x of each wanted input; inner, channels.
    The workspace has sums + time_steps * saved rows of floats, each as long as a block is
    wide. To the totals, in double precision, it adds the gradients of parameters: one for
    each wanted scalar, then `channels` for each wanted channel parameter.
    """
    states = range(len(structure.state))
    graph = Graph(structure.nodes)
    grads = derivative(graph, structure, wanted)
    saved = saving(graph, grads, len(structure.nodes))
    saved_rows = {f"saved{j}": node for j, node in enumerate(saved)}
    read = _Read(graph, (*saved, *structure.state, *grads))
    kernel = _Kernel("backward")

    again = _Step(kernel, "again", read)
    again.writes(graph, saved_rows | _named("state", structure.state))
    back = _Step(kernel, "back", read, given={node: name for name, node in saved_rows.items()})
    back.exact = set(graph.needed((structure.spikes, *structure.state)))
    # From here on, the rows of the states hold their gradients.
    back.given |= {graph("grad_state", value=k): f"state{k}" for k in states}
    back.given[graph("grad_spikes")] = "grad_spikes"
    parts = iter(grads)
    results = {f"grad_x{k}": next(parts) for k in wanted.inputs}
    results |= {f"state{k}": next(parts) for k in states}
    added = {f"sum{j}": node for j, node in enumerate(parts)}
    added |= {f"grad_x{k}": results.pop(f"grad_x{k}") for k in wanted.held}
    back.writes(graph, results, added)

    sums = len(wanted.scalars) + len(wanted.channels)
    steps = kernel.argument("time_steps")
    with kernel.blocks():
        sum_rows = {f"sum{j}": kernel.workspace(j) for j in range(sums)}
        rows = {f"state{k}": kernel.row(f"grad_s{k}") for k in states}
        for k in states:
            kernel.copy(f"s{k}", rows[f"state{k}"])
        rows |= kernel.channels(read)

        def at(t: ir.Value) -> dict[str, ir.Value]:
            first = kernel.b.mul(t, kernel.index(len(saved)))
            kept = {
                f"saved{j}": kernel.workspace(kernel.b.add(first, kernel.index(sums + j)))
                for j in range(len(saved))
            }
            return rows | kernel.inputs(read, t) | kept

        with kernel.loop(steps) as t:
            again.call(at(t))
        for k in states:
            kernel.copy(f"grad_last{k}", rows[f"state{k}"])
        for row in sum_rows.values():
            kernel.clear(row)
        with kernel.loop(steps) as passed:
            t = kernel.b.sub(kernel.b.sub(steps, kernel.index(1)), passed)
            out = {
                f"grad_x{k}": kernel.row(f"grad_x{k}", None if k in wanted.held else t)
                for k in wanted.inputs
            }
            spikes = {"grad_spikes": kernel.row("grad_spikes", t)}
            back.call(at(t) | out | spikes | sum_rows)
        kernel.total(list(sum_rows.values()), len(wanted.scalars))
    return kernel.source(len(saved), sums)


class _Read:
    """What a kernel reads: of the parameters only those on which its targets depend.

    So a forward kernel knows nothing of a surrogate, and serves them all.
    """

    def __init__(self, graph: Graph, targets: Iterable[int]) -> None:
        self.nodes = {i: graph.nodes[i] for i in graph.needed(targets)}

    def numbers(self, op: str) -> dict[int, int]:
        """Of the nodes that read an `op`: which one each reads."""
        return {i: int(node.value) for i, node in self.nodes.items() if node.op == op}


class _Step:
    """A function `name(n, scalars, rows...)` of a kernel: a step of n neurons.

    given: nodes by the row they are read from. exact: nodes that must be rounded as the
    reference rounds them; None for all. Elsewhere a quotient may be the product with an
    inverse, which is then computed once for all neurons where it is a parameter's. bytes: the
    rows of bytes among those of floats.
    """

    exact: set[int] | None = None
    bytes: Collection[str] = ()

    def __init__(
        self, kernel: _Kernel, name: str, read: _Read, given: dict[int, str] | None = None
    ) -> None:
        self.kernel, self.name = kernel, name
        self.scalars = read.numbers("scalar")
        self.given = dict(given or {})
        for op in ("input", "state", "channel"):
            for node, k in read.numbers(op).items():
                self.given.setdefault(node, f"{op}{k}")

    def writes(
        self, graph: Graph, results: dict[str, int], added: dict[str, int] | None = None
    ) -> None:
        """Its code: computes nodes from what is given, and stores or adds them by rows."""
        targets = results | (added or {})
        needed = graph.needed(targets.values(), self.given)
        read = [self.given[i] for i in needed if i in self.given]
        self.rows = tuple(dict.fromkeys((*read, *targets)))
        kinds = [INDEX, *[_POINTER] * (1 + len(self.rows))]
        self.function = self.kernel.function(self.name, kinds)
        b = ir.IRBuilder(self.function.append_basic_block())
        n, scalars, *pointers = self.function.args
        rows = dict(zip(self.rows, pointers, strict=True))
        values = {
            node: b.load(_element(b, scalars, k), typ=FLOAT)
            for node, k in self.scalars.items()
            if node in needed
        }
        with _loop(b, n) as i:
            places = {
                name: _element(b, pointer, i, BYTE if name in self.bytes else FLOAT)
                for name, pointer in rows.items()
            }
            for node in needed:
                op, _, value = graph.nodes[node]
                if node in self.given:
                    values[node] = b.load(places[self.given[node]], typ=FLOAT)
                elif op == "number":
                    values[node] = number(value)
                elif node not in values:
                    operands = [values[k] for k in graph.arguments(node)]
                    if op == "div" and self.exact is not None and node not in self.exact:
                        values[node] = b.fdiv(*operands, flags=("arcp",))
                    else:
                        values[node] = OPERATIONS[op](b, *operands)
            for name, node in targets.items():
                value = values[node]
                if name not in results:
                    value = b.fadd(b.load(places[name], typ=FLOAT), value)
                if name in self.bytes:
                    value = b.fptoui(value, BYTE)
                b.store(value, places[name])
        b.ret_void()

    def call(self, rows: dict[str, ir.Value]) -> None:
        """Within the kernel, the step of the block at hand, on these rows."""
        kernel = self.kernel
        scalars = kernel.argument("scalars")
        kernel.b.call(
            self.function,
            [kernel.n, kernel.pointer(scalars), *(rows[name] for name in self.rows)],
        )


class _Kernel:
    """The function of a kernel under construction, and what it has at hand."""

    def __init__(self, name: str) -> None:
        self.module = ir.Module(name)
        kinds = [INDEX, INDEX, _POINTER, _POINTER, _POINTER]
        self._function = ir.Function(self.module, ir.FunctionType(ir.VoidType(), kinds), "kernel")
        self._entry = ir.IRBuilder(self._function.append_basic_block("entry"))
        self.b = ir.IRBuilder(self._function.append_basic_block("start"))
        self._arguments: dict[str, ir.Value] = {}
        self._copy, self._clear = _copy_rows(self), _clear_row(self)

    def source(self, saved: int = 0, rows: int = 0) -> Source:
        """The kernel, now that it is complete."""
        self.b.ret_void()
        self._entry.branch(self._function.blocks[1])
        return Source(str(self.module), tuple(self._arguments), saved, rows)

    def function(self, name: str, kinds: list[ir.Type]) -> ir.Function:
        """A function of the kernel's own, whose pointers do not overlap."""
        made = ir.Function(self.module, ir.FunctionType(ir.VoidType(), kinds), name)
        made.linkage = "internal"
        made.attributes.add("noinline")
        for argument in made.args:
            if argument.type == _POINTER:
                argument.add_attribute("noalias")
        return made

    def index(self, value: int) -> ir.Constant:
        return ir.Constant(INDEX, value)

    def argument(self, name: str) -> ir.Value:
        """The argument of that name, asked for once and loaded at the start."""
        if name not in self._arguments:
            place = self._entry.gep(
                self._function.args[2], [self.index(len(self._arguments))], source_etype=INDEX
            )
            self._arguments[name] = self._entry.load(place, typ=INDEX)
        return self._arguments[name]

    def pointer(self, address: ir.Value) -> ir.Value:
        return self.b.inttoptr(address, _POINTER)

    def loop(self, count: ir.Value) -> AbstractContextManager[ir.Value]:
        return _loop(self.b, count)

    @contextmanager
    def blocks(self) -> Iterator[None]:
        """For each block: it has `n` neurons from `lo` on."""
        first, end = self._function.args[:2]
        width, neurons = self.argument("width"), self.argument("neurons")
        with self.loop(self.b.sub(end, first)) as passed:
            self.lo = self.b.mul(self.b.add(first, passed), width)
            left = self.b.sub(neurons, self.lo)
            self.n = self.b.select(self.b.icmp_signed("<", left, width), left, width)
            yield

    def row(self, array: str, t: ir.Value | None = None, kind: ir.Type = FLOAT) -> ir.Value:
        """The block's part of (M,), or of row t of (T, M)."""
        start = self.lo if t is None else self._at(t, self.argument("neurons"))
        return _element(self.b, self.pointer(self.argument(array)), start, kind)

    def inputs(self, read: _Read, t: ir.Value) -> dict[str, ir.Value]:
        """The inputs at step t."""
        rows = {}
        for k in read.numbers("input").values():
            start = self._at(t, self.argument(f"stride_x{k}"))
            rows[f"input{k}"] = _element(self.b, self.pointer(self.argument(f"x{k}")), start)
        return rows

    def _at(self, t: ir.Value, stride: ir.Value) -> ir.Value:
        return self.b.add(self.lo, self.b.mul(t, stride))

    def channels(self, read: _Read) -> dict[str, ir.Value]:
        """The parameters of channels, from the block's first neuron on."""
        rows = {}
        for k in read.numbers("channel").values():
            start = self.b.urem(self.lo, self.argument("period"))
            array = self.pointer(self.argument(f"channel{k}"))
            rows[f"channel{k}"] = _element(self.b, array, start)
        return rows

    def workspace(self, row: int | ir.Value) -> ir.Value:
        """A row of it."""
        start = self.b.mul(self.index(row) if isinstance(row, int) else row, self.argument("width"))
        return _element(self.b, self._function.args[3], start)

    def copy(self, source: str, into: ir.Value) -> None:
        """The block's part of an array over neurons to a row."""
        stride = self.argument(f"stride_{source}")
        array = self.pointer(self.argument(source))
        start = _element(self.b, array, self.b.mul(self.lo, stride))
        self.b.call(self._copy, [self.n, into, start, stride])

    def clear(self, row: ir.Value) -> None:
        self.b.call(self._clear, [self.n, row])

    def total(self, rows: list[ir.Value], scalars: int) -> None:
        """Adds rows to the totals, the first `scalars` of them whole, and of the others each
        neuron's to that of its channel.
        """
        if not rows:
            return
        gather, one = _gather(self), self.index(1)
        for j, row in enumerate(rows):
            place, inner, channels = self.index(j), self.argument("neurons"), one
            if j >= scalars:
                inner, channels = self.argument("inner"), self.argument("channels")
                before = self.b.mul(self.index(j - scalars), channels)
                place = self.b.add(self.index(scalars), before)
            totals = _element(self.b, self._function.args[4], place, _DOUBLE)
            self.b.call(gather, [self.n, self.lo, inner, channels, row, totals])


def _named(prefix: str, nodes: Iterable[int]) -> dict[str, int]:
    return {f"{prefix}{k}": node for k, node in enumerate(nodes)}


def _element(
    b: ir.IRBuilder, array: ir.Value, index: ir.Value | int, kind: ir.Type = FLOAT
) -> ir.Value:
    if isinstance(index, int):
        index = ir.Constant(INDEX, index)
    return b.gep(array, [index], inbounds=True, source_etype=kind)


@contextmanager
def _loop(b: ir.IRBuilder, count: ir.Value) -> Iterator[ir.Value]:
    """For an index from 0 up to count; the builder is behind the loop afterwards."""
    before = b.block
    test, body, after = (b.append_basic_block(name) for name in ("test", "body", "after"))
    b.branch(test)
    b.position_at_end(test)
    i = b.phi(INDEX)
    i.add_incoming(ir.Constant(INDEX, 0), before)
    b.cbranch(b.icmp_signed("<", i, count), body, after)
    b.position_at_end(body)
    yield i
    i.add_incoming(b.add(i, ir.Constant(INDEX, 1), flags=("nsw",)), b.block)
    b.branch(test)
    b.position_at_end(after)


def _copy_rows(kernel: _Kernel) -> ir.Function:
    """copy(n, into, source, stride)"""
    made = kernel.function("copy", [INDEX, _POINTER, _POINTER, INDEX])
    n, into, source, stride = made.args
    b = ir.IRBuilder(made.append_basic_block())
    with _loop(b, n) as i:
        value = b.load(_element(b, source, b.mul(i, stride)), typ=FLOAT)
        b.store(value, _element(b, into, i))
    b.ret_void()
    return made


def _clear_row(kernel: _Kernel) -> ir.Function:
    """clear(n, row)"""
    made = kernel.function("clear", [INDEX, _POINTER])
    n, row = made.args
    b = ir.IRBuilder(made.append_basic_block())
    with _loop(b, n) as i:
        b.store(number(0), _element(b, row, i))
    b.ret_void()
    return made


def _gather(kernel: _Kernel) -> ir.Function:
    """gather(n, lo, inner, channels, row, totals): neuron i is of channel
    ((lo + i) // inner) % channels; neighbours are added up before they go to their total.
    """
    made = kernel.function("gather", [INDEX] * 4 + [_POINTER] * 2)
    n, lo, inner, channels, row, totals = made.args
    b = ir.IRBuilder(made.append_basic_block())
    zero, one = ir.Constant(INDEX, 0), ir.Constant(INDEX, 1)
    run = b.udiv(lo, inner)  # of neighbours of one channel
    last = b.udiv(b.sub(b.add(lo, n), one), inner)
    with _loop(b, b.add(b.sub(last, run), one)) as passed:
        number_of = b.add(run, passed)
        begin = b.sub(b.mul(number_of, inner), lo)
        end = b.add(begin, inner)
        begin = b.select(b.icmp_signed("<", begin, zero), zero, begin)
        end = b.select(b.icmp_signed(">", end, n), n, end)
        place = _element(b, totals, b.urem(number_of, channels), _DOUBLE)
        entry = b.load(place, typ=_DOUBLE)
        before = b.block
        test, body, after = (b.append_basic_block(name) for name in ("add", "next", "sum"))
        b.branch(test)
        b.position_at_end(test)
        i, total = b.phi(INDEX), b.phi(_DOUBLE)
        i.add_incoming(begin, before)
        total.add_incoming(entry, before)
        b.cbranch(b.icmp_signed("<", i, end), body, after)
        b.position_at_end(body)
        value = b.fpext(b.load(_element(b, row, i), typ=FLOAT), _DOUBLE)
        # In any order, else LLVM could add but one at a time.
        added = b.fadd(total, value, flags=("reassoc", "nsz"))
        i.add_incoming(b.add(i, one, flags=("nsw",)), body)
        total.add_incoming(added, body)
        b.branch(test)
        b.position_at_end(after)
        b.store(total, place)
    b.ret_void()
    return made
