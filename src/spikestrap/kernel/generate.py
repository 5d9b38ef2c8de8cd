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
    xs = _names("x", range(structure.inputs))
    rows = _Rows(len(states) + structure.channels)
    given = _given(graph, rows, len(states))
    step, names = _emit(graph, (structure.spikes, *structure.state), given)
    starts = [f"w[{rows.at(k)} + i] = s{k}[lo + i]" for k in states]
    stores = [f"w[{rows.at(k)} + i] = {names[structure.state[k]]}" for k in states]
    ends = [f"last{k}[lo + i] = w[{rows.at(k)} + i]" for k in states]
    arguments = ", ".join(
        ("inner", "scalars", "channels", *xs)
        + (*_names("s", states), "spikes", *_names("last", states))
    )
    return "\n".join(
        (
            *_head(graph),
            f"WIDTH = {rows.length}",
            "",
            "@jit",
            f"def forward(first, end, {arguments}):",
            "    neurons = spikes.shape[1]",
            f"    w = np.empty({rows.size}, np.float32)",
            "    for block in range(first, end):",
            f"        lo = block * {rows.length}",
            f"        n = min({rows.length}, neurons - lo)",
            "        hi = lo + n",
            *_indent(
                (
                    *_parameters(rows, structure, len(states)),
                    *_loop(starts),
                    "for t in range(spikes.shape[0]):",
                    *_indent(
                        (
                            *(f"{x}t = {x}[t if {x}.shape[0] > 1 else 0, lo:hi]" for x in xs),
                            "out = spikes[t, lo:hi]",
                            *_loop((*step, f"out[i] = {names[structure.spikes]}", *stores)),
                        )
                    ),
                    *_loop(ends),
                ),
                2,
            ),
            "",
        )
    )


def backward_source(structure: Structure, wanted: Wanted) -> str:
    """A module with the most neurons a block, WIDTH, how many values a neuron and step
    are saved, SAVED, and the function `backward(first, end, width, inner, scalars, channels,
    x..., s..., grad_spikes, grad_last..., grad_x..., grad_s..., grad_scalars,
    grad_channels)`, which runs the blocks from first up to end and writes grad_x and on.

    grad_scalars (wanted, blocks, 1) and grad_channels (wanted, blocks, C) get one row a
    block, so that no two threads add to the same place; the caller sums over blocks.
    """
    states, inputs = range(len(structure.state)), range(structure.inputs)
    graph = Graph(structure.nodes)
    seeds: dict[int, int] = {}
    for node, seed in (
        (structure.spikes, graph("grad_spikes")),
        *((structure.state[k], graph("grad_state", value=k)) for k in states),
    ):
        seeds[node] = graph("add", seeds[node], seed) if node in seeds else seed
    reads = [graph("input", value=k) for k in wanted.inputs]
    reads += [graph("state", value=k) for k in states]
    reads += [graph("scalar", value=k) for k in wanted.scalars]
    reads += [graph("channel", value=k) for k in wanted.channels]
    grads = graph.gradients(seeds, reads)
    saved = saving(graph, grads, len(structure.nodes))

    sums = range(len(wanted.scalars) + len(wanted.channels))
    rows = _Rows(len(states) + structure.channels + len(sums))
    sums_at = len(states) + structure.channels
    xs = _names("x", inputs)
    at_t = [f"{x}t = {x}[t if {x}.shape[0] > 1 else 0, lo:hi]" for x in xs]

    forward_given = _given(graph, rows, len(states))
    again, names = _emit(graph, (*saved, *structure.state), forward_given)
    again += [f"saved[(t * {len(saved)} + {j}) * n + i] = {names[v]}" for j, v in enumerate(saved)]
    again += [f"w[{rows.at(k)} + i] = {names[structure.state[k]]}" for k in states]

    given = {i: text for i, text in forward_given.items() if graph.nodes[i].op != "state"}
    given |= {v: f"saved[(t * {len(saved)} + {j}) * n + i]" for j, v in enumerate(saved)}
    given |= {graph("grad_state", value=k): f"w[{rows.at(k)} + i]" for k in states}
    given[graph("grad_spikes")] = "g[i]"
    back, names = _emit(graph, grads, given)
    results = iter(names[node] for node in grads)
    back += [f"h{k}[i] = {next(results)}" for k in wanted.inputs]
    back += [f"w[{rows.at(k)} + i] = {next(results)}" for k in states]
    back += [f"w[{rows.at(sums_at + j)} + i] += {next(results)}" for j in sums]

    arguments = ", ".join(
        ("inner", "scalars", "channels", *xs, *_names("s", states), "grad_spikes")
        + (*_names("grad_last", states), *_names("grad_x", wanted.inputs))
        + (*_names("grad_s", states), "grad_scalars", "grad_channels")
    )
    gathers = [("grad_scalars", j) for j in range(len(wanted.scalars))]
    gathers += [("grad_channels", j) for j in range(len(wanted.channels))]
    return "\n".join(
        (
            *_head(graph),
            f"SAVED = {len(saved)}",
            f"WIDTH = {rows.length}",
            "",
            "@jit",
            f"def backward(first, end, width, {arguments}):",
            "    time_steps, neurons = grad_spikes.shape",
            f"    w = np.empty({rows.size}, np.float32)",
            f"    saved = np.empty(time_steps * {len(saved)} * width, np.float32)",
            *(f"    sum{k} = np.empty(width, np.float32)" for k in wanted.inputs),
            "    for block in range(first, end):",
            "        lo = block * width",
            "        n = min(width, neurons - lo)",
            "        hi = lo + n",
            *_indent(
                (
                    *_parameters(rows, structure, len(states)),
                    *_loop([f"w[{rows.at(k)} + i] = s{k}[lo + i]" for k in states]),
                    "for t in range(time_steps):",
                    *_indent((*at_t, *_loop(again))),
                    *_loop(
                        [f"w[{rows.at(k)} + i] = grad_last{k}[lo + i]" for k in states]
                        + [f"w[{rows.at(sums_at + j)} + i] = ZERO" for j in sums]
                        + [f"grad_x{k}[0, lo + i] = ZERO" for k in wanted.inputs]
                    ),
                    "for t in range(time_steps - 1, -1, -1):",
                    *_indent(
                        (
                            *at_t,
                            "g = grad_spikes[t, lo:hi]",
                            *(
                                f"h{k} = grad_x{k}[t, lo:hi] if grad_x{k}.shape[0] == time_steps "
                                f"else sum{k}[:n]"
                                for k in wanted.inputs
                            ),
                            *_loop(back),
                            *(
                                line
                                for k in wanted.inputs
                                for line in (
                                    f"if grad_x{k}.shape[0] != time_steps:",
                                    *_indent(_loop([f"grad_x{k}[0, lo + i] += sum{k}[i]"])),
                                )
                            ),
                        )
                    ),
                    *_loop([f"grad_s{k}[lo + i] = w[{rows.at(k)} + i]" for k in states]),
                    *(
                        f"gather(w[{rows.at(sums_at + j)}:{rows.at(sums_at + j)} + n], lo, "
                        f"inner, {name}[{row}, block])"
                        for j, (name, row) in enumerate(gathers)
                    ),
                ),
                2,
            ),
            "",
        )
    )


def saving(graph: Graph, grads: list[int], forward_nodes: int) -> list[int]:
    """The values of a step that its derivative is computed from: those of the states."""
    return [i for i in graph.needed(grads) if graph.nodes[i].op == "state"]


class _Rows:
    """Where the rows of a block start in its array."""

    def __init__(self, count: int) -> None:
        self.length = _LONGEST_ROW
        while self.length * count > _BLOCK_FLOATS and self.length > 64:
            self.length //= 2
        self.size = count * self.length

    def at(self, row: int) -> int:
        return row * self.length


def _head(graph: Graph) -> list[str]:
    numbers = [
        f"n{i} = np.float32({node.value!r})"
        for i, node in enumerate(graph.nodes)
        if node.op == "number"
    ]
    return [
        "import numba",
        "import numpy as np",
        "from spikestrap.kernel.vector import exp, gather, sigmoid, sign, spread",
        "",
        'options = {"nogil": True, "cache": CACHE, "error_model": "numpy", "boundscheck": False}',
        "jit = numba.njit(**options)",
        "ZERO = np.float32(0)",
        "ONE = np.float32(1)",
        *numbers,
        "",
    ]


def _parameters(rows: _Rows, structure: Structure, states: int) -> list[str]:
    """A block's parameters, put where the step reads them."""
    return [
        *(f"p{k} = scalars[{k}]" for k in range(structure.scalars)),
        *(
            f"spread(channels[{k}], lo, inner, w[{rows.at(states + k)}:{rows.at(states + k)} + n])"
            for k in range(structure.channels)
        ),
    ]


def _given(graph: Graph, rows: _Rows, states: int) -> dict[int, str]:
    """How the step's loop reads its inputs, states and parameters."""
    texts = {
        "input": lambda k: f"x{k}t[i]",
        "state": lambda k: f"w[{rows.at(k)} + i]",
        "scalar": lambda k: f"p{k}",
        "channel": lambda k: f"w[{rows.at(states + k)} + i]",
    }
    return {
        i: texts[node.op](int(node.value)) for i, node in enumerate(graph.nodes) if node.op in texts
    }


def _emit(
    graph: Graph, targets: Iterable[int], given: dict[int, str]
) -> tuple[list[str], dict[int, str]]:
    """Assignments that compute the targets from what is given, and all values' names."""
    lines, names = [], {}
    for i in graph.needed(targets, given):
        node = graph.nodes[i]
        if node.op == "number":
            names[i] = f"n{i}"
            continue
        names[i] = f"v{i}"
        right = given[i] if i in given else _FORMS[node.op].format(*(names[a] for a in node.args))
        lines.append(f"v{i} = {right}")
    return lines, names


def _names(prefix: str, numbers: Iterable[int]) -> tuple[str, ...]:
    return tuple(f"{prefix}{k}" for k in numbers)


def _indent(lines: Iterable[str], levels: int = 1) -> list[str]:
    return [f"{'    ' * levels}{line}" for line in lines]


def _loop(lines: Iterable[str]) -> list[str]:
    body = list(lines)
    return ["for i in range(n):", *_indent(body)] if body else []
