"""LLVM code of fused CPU kernels from a traced step: forward and backward.

Neurons are independent, so a kernel takes a few vectors of them at a time through all time
steps, with their states in registers: memory is read and written once. The backward pass runs
them forward again rather than store what the derivative needs, and keeps what it saves on the
way in a workspace that stays in cache. What is left over of the neurons is taken one by one.

A kernel is a function

    kernel(first, end, arguments, workspace, totals)

that runs the blocks of neurons from first up to end. `arguments` points to 64-bit numbers:
sizes, and addresses of arrays. Inputs are (T, M) with their own stride from step to step, 0 if
held; states (M,) with stride 0 if they are `GROUP` equal values; parameters of channels are
laid out for as many neurons as one sample has, and a block's width beyond, so that any block
reads a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from llvmlite import ir

from .building import element, loop
from .derivative import Wanted, derivative, saving
from .expression import Graph
from .trace import Structure
from .vector import (
    BYTE,
    DOUBLE,
    FLOAT,
    FLOAT_BYTES,
    INDEX,
    INT,
    OPERATIONS,
    ROUGH_OPERATIONS,
    call,
    number,
    splat,
    vector,
)

# Values of a vector, and vectors that go through time together: four hide each other's latency.
_LANES, _VECTORS = 16, 4
GROUP = _LANES * _VECTORS
_POINTER = ir.PointerType()
# What LLVM's prefetch takes: for reading (0), to the second cache (2), data (1). In the first one
# rows of large arrays may all fall upon a few places, and drive each other out.
_TO_READ = [ir.Constant(INT, value) for value in (0, 2, 1)]

# One value of each neuron of a group, by vectors.
Group = list[ir.Value]


class Source(NamedTuple):
    """A kernel: its code, the names of its arguments in order, and the workspace that it needs.

    rows: floats a neuron of a block. saved: floats a time step and neuron of a group, behind.
    """

    code: str
    arguments: tuple[str, ...]
    saved: int = 0
    rows: int = 0


def forward_source(structure: Structure, streamed: bool = False) -> Source:
    """A kernel that writes spikes and last states.

    streamed: past the caches, for spikes too many to stay there; their rows start at multiples
    of 64 bytes then.

    Arguments: time_steps, neurons, width, period, scalars; x, stride_x of each input; s,
    stride_s, last of each state; spikes; channel of each channel parameter that is read.
    """
    kernel = _Kernel("forward", structure)
    targets = (structure.spikes, *structure.state)
    for group in kernel.groups(targets):
        with group.over_time(group.states()) as (t, states):
            spikes, *after = group.compute(targets, group.state_nodes(states), t)
            group.store("spikes", spikes, t, streamed=streamed)
            states[:] = after
        for k, last in enumerate(states):
            group.store(f"last{k}", last, streamed=streamed)
    return kernel.source(fence=streamed)


def inference_source(structure: Structure, counted: bool) -> Source:
    """A kernel that writes spikes as bytes of 0 or 1; or, counted, how often each neuron fired.

    Arguments as in `forward_source`, but last; counts, floats (M,), for spikes if counted.
    """
    kernel = _Kernel("inference", structure)
    targets = (structure.spikes, *structure.state)
    for group in kernel.groups(targets):
        carried = group.states()
        if counted:
            carried.append(group.constant(0))
        with group.over_time(carried) as (t, values):
            states = values[: len(structure.state)]
            spikes, *after = group.compute(targets, group.state_nodes(states), t)
            if counted:
                after.append(group.add(values[-1], spikes))
            else:
                group.store_bytes("spikes", spikes, t)
            values[:] = after
        if counted:
            group.store("counts", values[-1])
    return kernel.source()


def backward_source(structure: Structure, wanted: Wanted, streamed: bool = False) -> Source:
    """A kernel that writes gradients of the wanted inputs and of all first states.

    streamed: gradients of inputs past the caches, see `forward_source`.

    Arguments as in `forward_source`, but spikes and last; grad_spikes; grad_last,
    stride_grad_last, grad_s of each state; grad_x of each wanted input; inner, channels.
    To the totals, in double precision, it adds the gradients of parameters: one for each
    wanted scalar, then `channels` for each wanted channel parameter.
    """
    states = range(len(structure.state))
    graph = Graph(structure.nodes)
    grads = derivative(graph, structure, wanted)
    saved = saving(graph, grads, len(structure.nodes))
    exact = set(graph.needed((structure.spikes, *structure.state)))
    parts = iter(grads)
    of_inputs = {k: next(parts) for k in wanted.inputs}
    of_states = [next(parts) for _ in states]
    of_parameters = list(parts)
    # What is added up over time: in registers, and from there to memory.
    sums = [*(of_inputs.pop(k) for k in wanted.held), *of_parameters]

    kernel = _Kernel("backward", structure, graph)
    again = (*saved, *structure.state)
    seeds = [graph("grad_state", value=k) for k in states]
    of_spikes = graph("grad_spikes")
    for group in kernel.groups((*again, *grads), len(wanted.scalars), len(wanted.channels)):
        with group.over_time(group.states()) as (t, values):
            # Gradients of the next group, and further down inputs of the one behind it, each in
            # the order in which they will be read.
            group.fetch("grad_spikes", group.in_row(group.mirrored(t)), groups_on=1)
            results = group.compute(again, group.state_nodes(values), t, exact)
            for j in range(len(saved)):
                group.save(results[j], t, j, len(saved), len(of_parameters))
            values[:] = results[len(saved) :]
        carried = [group.load(f"grad_last{k}", group.at(f"grad_last{k}")) for k in states]
        carried += [group.load(f"grad_x{k}") for k in wanted.held]
        carried += [group.constant(0) for _ in of_parameters]
        with group.over_time(carried, backward=True) as (t, values):
            for k in group.inputs:
                group.fetch(f"x{k}", group.in_input(k, group.mirrored(t)), groups_on=2)
            given = dict(zip(seeds, values, strict=False))
            given[of_spikes] = group.load("grad_spikes", group.in_row(t))
            for j, node in enumerate(saved):
                given[node] = group.saved(t, j, len(saved), len(of_parameters))
            targets = (*of_inputs.values(), *of_states, *sums)
            found = iter(group.compute(targets, given, t, exact))
            for k in of_inputs:
                group.store(f"grad_x{k}", next(found), t, streamed=streamed)
            after = [next(found) for _ in states]
            so_far = values[len(states) :]
            values[:] = after + [group.add(a, b) for a, b in zip(so_far, found, strict=True)]
        named = [*(f"grad_s{k}" for k in states), *(f"grad_x{k}" for k in wanted.held)]
        for name, value in zip(named, values, strict=False):
            group.store(name, value, streamed=streamed)
        for j, value in enumerate(values[len(named) :]):
            group.keep(value, j)
    return kernel.source(len(saved), len(of_parameters), fence=streamed)


class _Kernel:
    """The function of a kernel under construction, and what it has at hand."""

    def __init__(self, name: str, structure: Structure, graph: Graph | None = None) -> None:
        self.module = ir.Module(name)
        self.graph = graph or Graph(structure.nodes)
        kinds = [INDEX, INDEX, _POINTER, _POINTER, _POINTER]
        self._function = ir.Function(self.module, ir.FunctionType(ir.VoidType(), kinds), "kernel")
        self._entry = ir.IRBuilder(self._function.append_basic_block("entry"))
        self.b = ir.IRBuilder(self._function.append_basic_block("start"))
        self._arguments: dict[str, ir.Value] = {}
        self._scalars: dict[tuple[int, int], ir.Value] = {}
        self._states = len(structure.state)

    def groups(
        self, targets: Iterable[int], scalars: int = 0, channels: int = 0
    ) -> Iterator[_Group]:
        """For each block, first the code of whole groups of its neurons, then that of single ones.

        targets: the nodes that are computed, which tell what is read. scalars, channels: of how
        many parameters the groups `keep` gradients, which are then added to the totals.
        """
        needed = self.graph.needed(targets)
        first, end = self._function.args[:2]
        width, neurons = self.argument("width"), self.argument("neurons")
        with loop(self.b, self.b.sub(end, first)) as (passed, _):
            self.lo = self.b.mul(self.b.add(first, passed), width)
            left = self.b.sub(neurons, self.lo)
            self.n = self.b.select(self.b.icmp_signed("<", left, width), left, width)
            whole = self.b.udiv(self.n, self.index(GROUP))
            rest = self.b.urem(self.n, self.index(GROUP))
            with loop(self.b, whole) as (i, _):
                yield _Group(self, self.b.mul(i, self.index(GROUP)), _LANES, _VECTORS, needed)
            with loop(self.b, rest) as (i, _):
                place = self.b.add(self.b.mul(whole, self.index(GROUP)), i)
                yield _Group(self, place, 1, 1, needed)
            self._total(scalars, channels)

    def source(self, saved: int = 0, rows: int = 0, fence: bool = False) -> Source:
        """The kernel, now that it is complete.

        fence: what went past the caches must have arrived before others may read it.
        """
        if fence:
            self.b.fence("seq_cst")
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

    def array(self, name: str) -> ir.Value:
        """The address of the array of that name."""
        return self.b.inttoptr(self.argument(name), _POINTER)

    def scalar(self, k: int, lanes: int) -> ir.Value:
        """A parameter that is the same for all neurons, loaded at the start."""
        if (k, lanes) not in self._scalars:
            b = self._entry
            scalars = b.inttoptr(self.argument("scalars"), _POINTER)
            value = b.load(element(b, scalars, k), typ=FLOAT)
            self._scalars[k, lanes] = splat(b, value, lanes)
        return self._scalars[k, lanes]

    def workspace(self, start: ir.Value) -> ir.Value:
        """It, from a float on."""
        return element(self.b, self._function.args[3], start)

    def _total(self, scalars: int, channels: int) -> None:
        """Adds what the groups kept to the totals: the first `scalars` of it whole, of the others
        each neuron's to that of its channel.
        """
        gather = _gather(self) if scalars + channels else None
        for j in range(scalars + channels):
            place, inner, size = self.index(j), self.argument("neurons"), self.index(1)
            if j >= scalars:
                inner, size = self.argument("inner"), self.argument("channels")
                before = self.b.mul(self.index(j - scalars), size)
                place = self.b.add(self.index(scalars), before)
            totals = element(self.b, self._function.args[4], place, DOUBLE)
            row = self.workspace(self.b.mul(self.index(j), self.argument("width")))
            self.b.call(gather, [self.n, self.lo, inner, size, row, totals])


class _Group:
    """A few vectors of a block's neurons, whose way through time is under construction.

    place: of the first of them in the block.
    """

    def __init__(
        self, kernel: _Kernel, place: ir.Value, lanes: int, vectors: int, needed: list[int]
    ) -> None:
        self.kernel, self.b, self.place = kernel, kernel.b, place
        self.lanes, self.vectors = lanes, vectors
        self.start = self.b.add(kernel.lo, place)
        nodes = kernel.graph.nodes
        self._state_nodes = {int(nodes[i].value): i for i in needed if nodes[i].op == "state"}
        self.inputs = [int(nodes[i].value) for i in needed if nodes[i].op == "input"]
        # What is the same at all steps.
        self._fixed: dict[int, Group] = {}
        for i in needed:
            op, _, value = nodes[i]
            if op == "number":
                self._fixed[i] = self.constant(value)
            elif op == "scalar":
                self._fixed[i] = [kernel.scalar(int(value), lanes)] * vectors
            elif op == "channel":
                begin = self.b.urem(kernel.lo, kernel.argument("period"))
                self._fixed[i] = self.load(f"channel{int(value)}", self.b.add(begin, place))

    def constant(self, value: float) -> Group:
        return [number(value, self.lanes)] * self.vectors

    def add(self, first: Group, second: Group) -> Group:
        return [self.b.fadd(x, y) for x, y in zip(first, second, strict=True)]

    def at(self, name: str) -> ir.Value:
        """Where an array over neurons, with a stride, has the group."""
        return self.b.mul(self.start, self.kernel.argument(f"stride_{name}"))

    def in_row(self, t: ir.Value, stride: ir.Value | None = None) -> ir.Value:
        """Where row t of (T, M) has the group."""
        stride = self.kernel.argument("neurons") if stride is None else stride
        return self.b.add(self.start, self.b.mul(t, stride))

    def in_input(self, k: int, t: ir.Value) -> ir.Value:
        """Where step t of input k has the group."""
        return self.in_row(t, self.kernel.argument(f"stride_x{k}"))

    def mirrored(self, t: ir.Value) -> ir.Value:
        """The step that is as far from the last one as t is from the first."""
        return self.b.sub(self.b.sub(self.kernel.argument("time_steps"), self.kernel.index(1)), t)

    def states(self) -> list[Group]:
        """All states before the first step."""
        return [self.load(f"s{k}", self.at(f"s{k}")) for k in range(self.kernel._states)]

    def state_nodes(self, values: list[Group]) -> dict[int, Group]:
        """The states' values by the nodes that read them."""
        return {i: values[k] for k, i in self._state_nodes.items()}

    def load(self, name: str, at: ir.Value | None = None) -> Group:
        """The group's part of an array of floats, from an index on."""
        return self._load(self.kernel.array(name), self.start if at is None else at)

    def fetch(self, name: str, at: ir.Value, groups_on: int) -> None:
        """Has an array's part of a later group come to the cache meanwhile: rows that lie far
        apart are no stream that a processor would foresee.
        """
        if self.lanes == 1:
            return
        at = self.b.add(at, self.kernel.index(groups_on * GROUP))
        for v in range(self.vectors):
            index = self.b.add(at, self.kernel.index(self.lanes * v))
            # Behind the last group there is nothing.
            place = element(self.b, self.kernel.array(name), index, inbounds=False)
            call(self.b, "llvm.prefetch.p0", ir.VoidType(), place, *_TO_READ)

    def _load(self, array: ir.Value, at: ir.Value | None = None) -> Group:
        return [self._load_vector(place) for place in self._places(array, at)]

    def _load_vector(self, place: ir.Value) -> ir.Value:
        return self.b.load(place, align=FLOAT_BYTES, typ=vector(FLOAT, self.lanes))

    def store(
        self, name: str, values: Group, t: ir.Value | None = None, streamed: bool = False
    ) -> None:
        """Writes the group's part of (M,), or of row t of (T, M)."""
        at = self.start if t is None else self.in_row(t)
        streamed = streamed and self.lanes > 1
        for place, value in zip(self._places(self.kernel.array(name), at), values, strict=True):
            stored = self.b.store(value, place, align=64 if streamed else FLOAT_BYTES)
            if streamed:
                on = self.kernel.module.add_metadata([ir.Constant(INT, 1)])
                stored.set_metadata("nontemporal", on)

    def store_bytes(self, name: str, values: Group, t: ir.Value) -> None:
        """Writes the group's part of row t of (T, M), a byte a value."""
        places = self._places(self.kernel.array(name), self.in_row(t), BYTE)
        for place, value in zip(places, values, strict=True):
            self.b.store(self.b.fptoui(value, vector(BYTE, self.lanes)), place, align=1)

    def keep(self, values: Group, row: int) -> None:
        """Writes to a row of the workspace that is as long as a block is wide."""
        start = self.b.mul(self.kernel.index(row), self.kernel.argument("width"))
        array = self.kernel.workspace(self.b.add(start, self.place))
        for place, value in zip(self._places(array), values, strict=True):
            self.b.store(value, place, align=FLOAT_BYTES)

    def save(self, values: Group, t: ir.Value, j: int, count: int, rows: int) -> None:
        """Keeps the value j of `count` of step t, in the workspace behind `rows` rows."""
        array = self._kept(t, j, count, rows)
        for place, value in zip(self._places(array), values, strict=True):
            self.b.store(value, place, align=FLOAT_BYTES)

    def saved(self, t: ir.Value, j: int, count: int, rows: int) -> Group:
        """What `save` kept."""
        return self._load(self._kept(t, j, count, rows))

    def _kept(self, t: ir.Value, j: int, count: int, rows: int) -> ir.Value:
        index = self.kernel.index
        behind = self.b.mul(index(rows), self.kernel.argument("width"))
        which = self.b.add(self.b.mul(t, index(count)), index(j))
        return self.kernel.workspace(self.b.add(behind, self.b.mul(which, index(GROUP))))

    def _places(
        self, array: ir.Value, at: ir.Value | None = None, kind: ir.Type = FLOAT
    ) -> list[ir.Value]:
        start = array if at is None else element(self.b, array, at, kind)
        return [element(self.b, start, self.lanes * v, kind) for v in range(self.vectors)]

    @contextmanager
    def over_time(
        self, carried: list[Group], backward: bool = False
    ) -> Iterator[tuple[ir.Value, list[Group]]]:
        """For a step t, and values that are carried from step to step.

        The body puts what they are after the step in the list, and finds in it what they are
        after the last one when the loop has ended.
        """
        with loop(self.b, self.kernel.argument("time_steps"), carried) as (passed, values):
            yield self.mirrored(passed) if backward else passed, values

    def compute(
        self,
        targets: Iterable[int],
        given: dict[int, Group],
        t: ir.Value,
        exact: set[int] | None = None,
    ) -> list[Group]:
        """Nodes at step t, from those that are given.

        exact: nodes that must be rounded as the reference rounds them; None for all.
        """
        graph, targets = self.kernel.graph, list(targets)
        given = self._fixed | given
        needed = [i for i in graph.needed(targets, given) if i not in given]
        places = {}
        for i in needed:
            op, _, value = graph.nodes[i]
            if op == "input":
                k = int(value)
                places[i] = self._places(self.kernel.array(f"x{k}"), self.in_input(k, t))
        # One vector after the other, so that what lies between need not all be in registers.
        results = []
        for v in range(self.vectors):
            values = {i: group[v] for i, group in given.items()}
            for i in needed:
                if i in places:
                    values[i] = self._load_vector(places[i][v])
                    continue
                op = graph.nodes[i].op
                operation = OPERATIONS[op]
                if exact is not None and i not in exact:
                    operation = ROUGH_OPERATIONS.get(op, operation)
                values[i] = operation(self.b, *(values[k] for k in graph.arguments(i)))
            results.append([values[i] for i in targets])
        return [list(group) for group in zip(*results, strict=True)]


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
    with loop(b, b.add(b.sub(last, run), one)) as (passed, _):
        number_of = b.add(run, passed)
        begin = b.sub(b.mul(number_of, inner), lo)
        end = b.add(begin, inner)
        begin = b.select(b.icmp_signed("<", begin, zero), zero, begin)
        end = b.select(b.icmp_signed(">", end, n), n, end)
        place = element(b, totals, b.urem(number_of, channels), DOUBLE)
        entry = b.load(place, typ=DOUBLE)
        before = b.block
        test, body, after = (b.append_basic_block(name) for name in ("add", "next", "sum"))
        b.branch(test)
        b.position_at_end(test)
        i, total = b.phi(INDEX), b.phi(DOUBLE)
        i.add_incoming(begin, before)
        total.add_incoming(entry, before)
        b.cbranch(b.icmp_signed("<", i, end), body, after)
        b.position_at_end(body)
        value = b.fpext(b.load(element(b, row, i), typ=FLOAT), DOUBLE)
        # In any order, else LLVM could add but one at a time.
        added = b.fadd(total, value, flags=("reassoc", "nsz"))
        i.add_incoming(b.add(i, one, flags=("nsw",)), body)
        total.add_incoming(added, body)
        b.branch(test)
        b.position_at_end(after)
        b.store(total, place)
    b.ret_void()
    return made
