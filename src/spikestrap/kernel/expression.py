"""One time step as a graph of scalar expressions, and its derivative as another.

Nodes are numbered; a node's arguments come before it, and equal nodes are one. What a node
computes is named by its `op`; those that read something are

    input k      z (k = 0) and the extras        state k      the state before the step
    scalar k     a parameter, the same for all   channel k    a parameter, one a channel
    number       a literal                       grad_spikes, grad_state k (in derivatives)

Values are float32 or, from comparisons and logic, bool; `float` turns bool into 0 and 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

COMPARISONS = ("gt", "ge", "lt", "le", "eq", "ne")
LOGIC = ("and", "or", "xor", "not")
READS = ("input", "state", "scalar", "channel", "number", "grad_spikes", "grad_state")


class Node(NamedTuple):
    """An operation on earlier nodes; `value` is a number, or which of the inputs is read."""

    op: str
    args: tuple[int, ...] = ()
    value: float = 0

    @property
    def is_bool(self) -> bool:
        """Whether it is a truth value rather than a float."""
        return self.op in COMPARISONS or self.op in LOGIC


class Graph:
    """Nodes under construction.

    >>> graph = Graph()
    >>> z = graph("input")
    >>> graph.gradients({graph("mul", z, z): graph.number(1.0)}, [z])
    [3]
    >>> graph.nodes[3]
    Node(op='add', args=(0, 0), value=0)
    """

    def __init__(self, nodes: Iterable[Node] = ()) -> None:
        self.nodes = list(nodes)
        self._known = {node: i for i, node in enumerate(self.nodes)}

    def __call__(self, op: str, *args: int, value: float = 0) -> int:
        """The node of that description, made if it is new."""
        node = Node(op, args, value)
        if node not in self._known:
            self._known[node] = len(self.nodes)
            self.nodes.append(node)
        return self._known[node]

    def number(self, value: float) -> int:
        """A literal."""
        return self("number", value=float(value))

    def as_float(self, node: int) -> int:
        """The node, as a number where it is a truth value."""
        return self("float", node) if self.nodes[node].is_bool else node

    def as_bool(self, node: int) -> int:
        """The node, as a truth value where it is a number."""
        return node if self.nodes[node].is_bool else self("ne", node, self.number(0))

    def arguments(self, node: int) -> tuple[int, ...]:
        """What the node's value is computed from."""
        op, args, _ = self.nodes[node]
        return args[:1] if op == "spike" else args

    def needed(self, targets: Iterable[int], given: Iterable[int] = ()) -> list[int]:
        """What the targets depend on, themselves included, in order; not beyond `given`."""
        found: set[int] = set()
        given = set(given)
        ahead = list(targets)
        while ahead:
            node = ahead.pop()
            if node not in found:
                found.add(node)
                if node not in given:
                    ahead.extend(self.arguments(node))
        return sorted(found)

    def gradients(self, seeds: dict[int, int], wanted: list[int]) -> list[int]:
        """Gradients of the wanted nodes, given those (`seeds`) of some nodes: reverse mode."""
        depends = set(wanted)
        for i in self.needed(seeds):
            if self.nodes[i].op != "detach" and depends.intersection(self.nodes[i].args):
                depends.add(i)
        sums, arithmetic = dict(seeds), _Arithmetic(self)
        for i in reversed(self.needed(seeds)):
            node = self.nodes[i]
            if i not in sums or i not in depends or node.op not in _DERIVATIVES:
                continue
            parts = _DERIVATIVES[node.op](arithmetic, sums[i], i, *node.args)
            for argument, part in zip(node.args, parts, strict=True):
                if part is not None and argument in depends:
                    sums[argument] = (
                        arithmetic.add(sums[argument], part) if argument in sums else part
                    )
        return [sums.get(node, self.number(0)) for node in wanted]


class _Arithmetic:
    """Operations that leave out what adds nothing: only for derivatives, not to the bit."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def _is(self, node: int, value: float) -> bool:
        return self.graph.nodes[node] == Node("number", (), value)

    def number(self, value: float) -> int:
        return self.graph.number(value)

    def op(self, op: str, *args: int) -> int:
        return self.graph(op, *args)

    def add(self, a: int, b: int) -> int:
        if self._is(a, 0):
            return b
        return a if self._is(b, 0) else self.op("add", a, b)

    def sub(self, a: int, b: int) -> int:
        if self._is(a, 0):
            return self.neg(b)
        return a if self._is(b, 0) else self.op("sub", a, b)

    def mul(self, a: int, b: int) -> int:
        if self._is(a, 0) or self._is(b, 0):
            return self.number(0)
        if self._is(a, 1):
            return b
        return a if self._is(b, 1) else self.op("mul", a, b)

    def div(self, a: int, b: int) -> int:
        return a if self._is(a, 0) or self._is(b, 1) else self.op("div", a, b)

    def neg(self, a: int) -> int:
        return a if self._is(a, 0) else self.op("neg", a)

    def where(self, condition: int, a: int, b: int) -> int:
        return a if a == b else self.op("where", condition, a, b)

    def only_where(self, condition: int, a: int) -> int:
        return self.where(condition, a, self.number(0))


Derivative = Callable[..., tuple[int | None, ...]]


def _power(m: _Arithmetic, g: int, y: int, a: int, p: int) -> tuple[int | None, ...]:
    exponent = m.graph.nodes[p].value
    slope = m.mul(m.number(exponent), m.op("pow", a, m.number(exponent - 1)))
    return m.mul(g, slope), None


def _extreme(comparison: str) -> Derivative:
    """Of maximum and minimum; a tie is shared out, as torch does."""

    def derivative(m: _Arithmetic, g: int, y: int, a: int, b: int) -> tuple[int | None, ...]:
        half = m.mul(m.number(0.5), g)
        tie, first = m.op("eq", a, b), m.op(comparison, a, b)
        zero = m.number(0)
        return (
            m.where(tie, half, m.where(first, g, zero)),
            m.where(tie, half, m.where(first, zero, g)),
        )

    return derivative


# Per op: (arithmetic, gradient of the result, result, *arguments) to the arguments' gradients.
# What is missing here has none: comparisons, logic, detach, rounding.
_DERIVATIVES: dict[str, Derivative] = {
    "add": lambda m, g, y, a, b: (g, g),
    "sub": lambda m, g, y, a, b: (g, m.neg(g)),
    "mul": lambda m, g, y, a, b: (m.mul(g, b), m.mul(g, a)),
    "div": lambda m, g, y, a, b: (m.div(g, b), m.neg(m.div(m.mul(g, y), b))),
    "neg": lambda m, g, y, a: (m.neg(g),),
    "abs": lambda m, g, y, a: (m.mul(g, m.op("sign", a)),),
    "exp": lambda m, g, y, a: (m.mul(g, y),),
    "log": lambda m, g, y, a: (m.div(g, a),),
    "sqrt": lambda m, g, y, a: (m.div(g, m.mul(m.number(2), y)),),
    "sin": lambda m, g, y, a: (m.mul(g, m.op("cos", a)),),
    "cos": lambda m, g, y, a: (m.neg(m.mul(g, m.op("sin", a))),),
    "tanh": lambda m, g, y, a: (m.mul(g, m.sub(m.number(1), m.mul(y, y))),),
    "sigmoid": lambda m, g, y, a: (m.mul(g, m.mul(y, m.sub(m.number(1), y))),),
    "pow": _power,
    "maximum": _extreme("gt"),
    "minimum": _extreme("lt"),
    "relu": lambda m, g, y, a: (m.only_where(m.op("gt", a, m.number(0)), g),),
    "clamp_min": lambda m, g, y, a, low: (m.only_where(m.op("ge", a, low), g), None),
    "clamp_max": lambda m, g, y, a, high: (m.only_where(m.op("le", a, high), g), None),
    "where": lambda m, g, y, c, a, b: (
        None,
        m.only_where(c, g),
        m.where(c, m.number(0), g),
    ),
    # A spike where its first argument is > 0; the second is its surrogate derivative.
    "spike": lambda m, g, y, over, slope: (m.mul(g, slope), None),
    # The value of its first argument, with the derivative of its second.
    "stand_in": lambda m, g, y, value, smooth: (None, g),
}
