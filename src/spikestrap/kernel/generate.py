"""Source code of fused CPU kernels (numba) from a traced step: forward and backward.

As in `cpu`: neurons are independent, so they are cut into blocks that threads share out;
inside a block, time is the outer loop and the state stays in cache. The backward pass runs
the block forward again rather than store what the derivative needs.

Arrays: inputs x (T, M), or (1, M) if held; states s, spikes' and states' gradients alike
(M,); scalars (P,); channels (K, C): neuron i is in channel (i // inner) % C. What belongs to
a block is in one array `w`, a row of constant length each, so that the compiler sees that
the rows do not overlap.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from .expression import Graph
from .trace import Structure

# Floats a row, a power of two; all of a block's rows should stay in a core's cache.
_LONGEST_ROW, _BLOCK_FLOATS = 4096, 32768

_FORMS = {
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} * {1}",
    "div": "{0} / {1}",
    "neg": "-{0}",
    "abs": "abs({0})",
    "exp": "exp({0})",
    "log": "np.log({0})",
    "sqrt": "np.sqrt({0})",
    "sin": "np.sin({0})",
    "cos": "np.cos({0})",
    "tanh": "np.tanh({0})",
    "sigmoid": "sigmoid({0})",
    "floor": "np.floor({0})",
    "ceil": "np.ceil({0})",
    "round": "np.rint({0})",
    "sign": "sign({0})",
    "pow": "np.power({0}, {1})",
    "maximum": "{0} if ({0} > {1}) | ({0} != {0}) else {1}",
    "minimum": "{0} if ({0} < {1}) | ({0} != {0}) else {1}",
    "relu": "ZERO if {0} < ZERO else {0}",
    "clamp_min": "{1} if {0} < {1} else {0}",
    "clamp_max": "{1} if {0} > {1} else {0}",
    "where": "{1} if {0} else {2}",
    "gt": "{0} > {1}",
    "ge": "{0} >= {1}",
    "lt": "{0} < {1}",
    "le": "{0} <= {1}",
    "eq": "{0} == {1}",
    "ne": "{0} != {1}",
    "and": "{0} & {1}",
    "or": "{0} | {1}",
    "xor": "{0} != {1}",
    "not": "not {0}",
    "float": "ONE if {0} else ZERO",
    "spike": "ONE if {0} > ZERO else ZERO",
    "detach": "{0}",
}


class Wanted(NamedTuple):
    """Which inputs, scalars and channels a backward pass gives gradients of, besides states."""

    inputs: tuple[int, ...]
    scalars: tuple[int, ...]
    channels: tuple[int, ...]


def forward_source(structure: Structure) -> str:
    """A module with WIDTH, the neurons a block, and the function
    `forward(first, end, inner, scalars, channels, x..., s..., spikes, last...)`,
    which runs the blocks from first up to end.
    """
    graph, states = Graph(structure.nodes), range(len(structure.state))
    xs, starts, lasts = (
        _names("x", range(structure.inputs)),
        _names("s", states),
        _names("last", states),
    )
    targets = (structure.spikes, *structure.state)
    read = _Read(graph, targets, len(states))
    rows = _Rows(len(states) + len(read.channels))
    step, names = _emit(graph, targets, read.given(rows))
    step += [f"out[i] = {names[structure.spikes]}"]
    step += [f"{rows.item(k)} = {names[structure.state[k]]}" for k in states]
    arguments = ", ".join(("inner", "scalars", "channels", *xs, *starts, "spikes", *lasts))
    return _module(
        graph,
        rows,
        f"forward(first, end, {arguments})",
        "time_steps, neurons = spikes.shape",
        f"w = np.empty({rows.size}, np.float32)",
        _nest(
            "for block in range(first, end):",
            f"lo = block * {rows.length}",
            f"hi = min(lo + {rows.length}, neurons)",
            "n = hi - lo",
            read.parameters(rows),
            _slices((*starts, *lasts)),
            _loop(f"{rows.item(k)} = s{k}b[i]" for k in states),
            _nest(
                "for t in range(time_steps):",
                _inputs(xs),
                "out = spikes[t, lo:hi]",
                _loop(step),
            ),
            _loop(f"last{k}b[i] = {rows.item(k)}" for k in states),
        ),
    )


def backward_source(structure: Structure, wanted: Wanted) -> str:
    """A module with the most neurons a block, WIDTH, how many values a neuron and step
    are saved, SAVED, and the function `backward(first, end, width, inner, scalars, channels,
    x..., s..., grad_spikes, grad_last..., grad_x..., grad_s..., grad_scalars,
    grad_channels)`, which runs the blocks from first up to end and writes grad_x and on.

    grad_scalars (wanted, blocks, 1) and grad_channels (wanted, blocks, C) get one row a
    block, so that no two threads add to the same place; the caller sums over blocks.
    """
    states = range(len(structure.state))
    xs, starts = _names("x", range(structure.inputs)), _names("s", states)
    grad_lasts, grad_starts = _names("grad_last", states), _names("grad_s", states)
    graph = Graph(structure.nodes)
    grads = derivative(graph, structure, wanted)
    saved = saving(graph, grads, len(structure.nodes))
    sums = [f"grad_scalars[{j}, block]" for j in range(len(wanted.scalars))]
    sums += [f"grad_channels[{j}, block]" for j in range(len(wanted.channels))]
    read = _Read(graph, (*saved, *structure.state, *grads), len(states))
    first_sum = len(states) + len(read.channels)
    rows = _Rows(first_sum + len(sums))

    given = read.given(rows)
    again, names = _emit(graph, (*saved, *structure.state), given)
    again += [f"saved{j}[i] = {names[node]}" for j, node in enumerate(saved)]
    again += [f"{rows.item(k)} = {names[structure.state[k]]}" for k in states]

    # From here on, the rows of the states hold their gradients.
    given = {i: text for i, text in given.items() if graph.nodes[i].op != "state"}
    given |= {node: f"saved{j}[i]" for j, node in enumerate(saved)}
    given |= {graph("grad_state", value=k): rows.item(k) for k in states}
    given[graph("grad_spikes")] = "g[i]"
    back, names = _emit(graph, grads, given)
    results = iter(names[node] for node in grads)
    back += [f"h{k}[i] = {next(results)}" for k in wanted.inputs]
    back += [f"{rows.item(k)} = {next(results)}" for k in states]
    back += [f"{rows.item(first_sum + j)} += {next(results)}" for j in range(len(sums))]

    saved_rows = [f"saved{j} = saved[t * {len(saved)} + {j}, :n]" for j in range(len(saved))]
    arguments = ", ".join(
        ("inner", "scalars", "channels", *xs, *starts, "grad_spikes", *grad_lasts)
        + (*_names("grad_x", wanted.inputs), *grad_starts, "grad_scalars", "grad_channels")
    )
    return _module(
        graph,
        rows,
        f"backward(first, end, width, {arguments})",
        "time_steps, neurons = grad_spikes.shape",
        f"w = np.empty({rows.size}, np.float32)",
        f"saved = np.empty((time_steps * {len(saved)}, width), np.float32)",
        [f"held{k} = np.empty(width, np.float32)" for k in wanted.inputs],
        _nest(
            "for block in range(first, end):",
            "lo = block * width",
            "hi = min(lo + width, neurons)",
            "n = hi - lo",
            read.parameters(rows),
            _slices((*starts, *grad_lasts, *grad_starts)),
            _loop(f"{rows.item(k)} = s{k}b[i]" for k in states),
            _nest("for t in range(time_steps):", _inputs(xs), saved_rows, _loop(again)),
            _loop(f"{rows.item(k)} = grad_last{k}b[i]" for k in states),
            _loop(f"{rows.item(first_sum + j)} = ZERO" for j in range(len(sums))),
            [f"grad_x{k}[0, lo:hi] = ZERO" for k in wanted.inputs],
            _nest(
                # Counting down, LLVM's tests fear an overlap of rows, and it runs one by one.
                "for back in range(time_steps):",
                "t = time_steps - 1 - back",
                _inputs(xs),
                saved_rows,
                "g = grad_spikes[t, lo:hi]",
                [
                    f"h{k} = grad_x{k}[t, lo:hi] if grad_x{k}.shape[0] == time_steps "
                    f"else held{k}[:n]"
                    for k in wanted.inputs
                ],
                _loop(back),
                *(
                    _nest(
                        f"if grad_x{k}.shape[0] != time_steps:",
                        f"total = grad_x{k}[0, lo:hi]",
                        _loop([f"total[i] += held{k}[i]"]),
                    )
                    for k in wanted.inputs
                ),
            ),
            _loop(f"grad_s{k}b[i] = {rows.item(k)}" for k in states),
            [
                f"gather({rows.slice(first_sum + j)}, lo, inner, {target})"
                for j, target in enumerate(sums)
            ],
        ),
        constants=(f"SAVED = {len(saved)}",),
    )


def derivative(graph: Graph, structure: Structure, wanted: Wanted) -> list[int]:
    """Adds a step's derivative to its graph: gradients of the wanted inputs, of all states,
    of the wanted scalars and channels, in this order.
    """
    states = range(len(structure.state))
    seeds: dict[int, int] = {structure.spikes: graph("grad_spikes")}
    for k in states:
        node, seed = structure.state[k], graph("grad_state", value=k)
        seeds[node] = graph("add", seeds[node], seed) if node in seeds else seed
    reads = [graph("input", value=k) for k in wanted.inputs]
    reads += [graph("state", value=k) for k in states]
    reads += [graph("scalar", value=k) for k in wanted.scalars]
    reads += [graph("channel", value=k) for k in wanted.channels]
    return graph.gradients(seeds, reads)


def saving(graph: Graph, grads: list[int], forward_nodes: int) -> list[int]:
    """The fewest values of a step from which its derivative can be computed, besides inputs
    and parameters, which are at hand: a minimum cut between the states and the derivative.

    forward_nodes: how many of the graph's nodes are the step's own.
    """
    needed = graph.needed(grads)
    by_state: set[int] = set()
    for i in needed:
        if graph.nodes[i].op == "state" or by_state.intersection(graph.arguments(i)):
            by_state.add(i)
    users: dict[int, list[int]] = {i: [] for i in by_state}
    for i in by_state:
        for argument in graph.arguments(i):
            if argument in by_state:
                users[argument].append(i)

    def savable(i: int) -> bool:
        return i < forward_nodes and not graph.nodes[i].is_bool

    # Paths from states to the derivative that share no value that could be saved (Menger):
    # as many as the cut has values. Each value is two points, (i, False) where it is computed
    # and (i, True) where it is used; a path found may undo parts of earlier ones.
    flows: set[tuple[tuple[int, bool], tuple[int, bool]]] = set()
    sources = [(i, False) for i in sorted(by_state) if graph.nodes[i].op == "state"]
    ends = {(i, False) for i in by_state if i >= forward_nodes or i in grads}

    def ahead(point: tuple[int, bool]) -> list[tuple[int, bool]]:
        i, used = point
        onward = [(user, False) for user in users[i]] if used else [(i, True)]
        if not used and savable(i) and (point, (i, True)) in flows:
            onward = []
        return onward + [a for a, b in flows if b == point]

    def reach() -> dict[tuple[int, bool], tuple[int, bool] | None]:
        came: dict[tuple[int, bool], tuple[int, bool] | None] = {}
        points: list[tuple[tuple[int, bool], tuple[int, bool] | None]]
        points = [(source, None) for source in sources]
        while points:
            point, before = points.pop()
            if point not in came:
                came[point] = before
                points += [(following, point) for following in ahead(point)]
        return came

    while True:
        came = reach()
        end = next((point for point in sorted(ends) if point in came), None)
        if end is None:
            return [i for i in sorted(by_state) if (i, False) in came and (i, True) not in came]
        point = end
        while (before := came[point]) is not None:
            if (point, before) in flows:
                flows.remove((point, before))
            else:
                flows.add((before, point))
            point = before


class _Rows:
    """Where the rows of a block start in its array."""

    def __init__(self, count: int) -> None:
        self.length = _LONGEST_ROW
        while self.length * count > _BLOCK_FLOATS and self.length > 64:
            self.length //= 2
        self.size = count * self.length

    def item(self, row: int) -> str:
        """An unsigned index: a signed one is taken for one from the end where negative."""
        return f"w[np.uintp(i) + np.uintp({row * self.length})]"

    def slice(self, row: int) -> str:
        return f"w[{row * self.length} : {row * self.length} + n]"


class _Read:
    """What a kernel reads: of the parameters only those on which its targets depend.

    So a forward kernel knows nothing of a surrogate, and serves them all.
    """

    def __init__(self, graph: Graph, targets: Iterable[int], states: int) -> None:
        self.graph, self.states = graph, states
        nodes = [graph.nodes[i] for i in graph.needed(targets)]
        self.scalars = sorted(int(node.value) for node in nodes if node.op == "scalar")
        self.channels = sorted(int(node.value) for node in nodes if node.op == "channel")

    def _row(self, channel: int) -> int:
        return self.states + self.channels.index(channel)

    def parameters(self, rows: _Rows) -> list[str]:
        """A block's parameters, put where the step reads them."""
        return [
            *(f"p{k} = scalars[{k}]" for k in self.scalars),
            *(
                f"spread(channels[{k}], lo, inner, {rows.slice(self._row(k))})"
                for k in self.channels
            ),
        ]

    def given(self, rows: _Rows) -> dict[int, str]:
        """How the step's loop reads its inputs, states and parameters."""
        texts = {
            "input": lambda k: f"x{k}t[i]",
            "state": lambda k: f"{rows.item(k)}",
            "scalar": lambda k: f"p{k}",
            "channel": lambda k: f"{rows.item(self._row(k))}",
        }
        return {
            i: texts[node.op](int(node.value))
            for i, node in enumerate(self.graph.nodes)
            if node.op in texts and not (node.op == "channel" and node.value not in self.channels)
        }


Lines = str | list[str]


def _module(
    graph: Graph, rows: _Rows, signature: str, *lines: Lines, constants: Iterable[str] = ()
) -> str:
    """A module of one function, with constants of its own before it."""
    code = _nest(f"def {signature}:", *lines)
    words = set(re.findall(r"\bn\w+", "\n".join(code)))
    numbers = sorted({node.value for node in graph.nodes if node.op == "number"})
    return "\n".join(
        (
            "import numba",
            "import numpy as np",
            "from spikestrap.kernel.vector import exp, gather, sigmoid, sign, spread",
            "",
            f"WIDTH = {rows.length}",
            *constants,
            "ZERO = np.float32(0)",
            "ONE = np.float32(1)",
            *(f"{_constant(x)} = np.float32({x!r})" for x in numbers if _constant(x) in words),
            "",
            '@numba.njit(nogil=True, cache=CACHE, error_model="numpy", boundscheck=False)',
            *code,
            "",
        )
    )


def _emit(
    graph: Graph, targets: Iterable[int], given: dict[int, str]
) -> tuple[list[str], dict[int, str]]:
    """Assignments that compute the targets from what is given, and all values' names."""
    lines: list[str] = []
    names: dict[int, str] = {}
    for i in graph.needed(targets, given):
        node = graph.nodes[i]
        if node.op == "number":
            names[i] = _constant(node.value)
            continue
        names[i] = f"v{len(lines)}"
        arguments = () if i in given else (names[a] for a in graph.arguments(i))
        lines.append(f"{names[i]} = {given.get(i) or _FORMS[node.op].format(*arguments)}")
    return lines, names


def _constant(value: float) -> str:
    """A number's name."""
    return "n" + re.sub(r"\W", "_", repr(value))


def _names(prefix: str, numbers: Iterable[int]) -> tuple[str, ...]:
    return tuple(f"{prefix}{k}" for k in numbers)


def _inputs(xs: Iterable[str]) -> list[str]:
    return [f"{x}t = {x}[t if {x}.shape[0] > 1 else 0, lo:hi]" for x in xs]


def _slices(arrays: Iterable[str]) -> list[str]:
    """A block's part of arrays over neurons: an index is then never taken for negative."""
    return [f"{array}b = {array}[lo:hi]" for array in arrays]


def _loop(lines: Iterable[str]) -> list[str]:
    """For each neuron of a block."""
    body = list(lines)
    return _nest("for i in range(n):", body) if body else []


def _nest(head: str, *lines: Lines) -> list[str]:
    flat = [line for part in lines for line in ([part] if isinstance(part, str) else part)]
    return [head, *(f"    {line}" for line in flat)]
