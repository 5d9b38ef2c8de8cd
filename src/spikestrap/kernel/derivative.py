"""A step's derivative, and what the backward pass must have saved of the step to compute it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from .expression import Graph
from .trace import Structure


class Wanted(NamedTuple):
    """Which inputs, scalars and channels a backward pass gives gradients of, besides states.

    held: those of the inputs that are held, so that their gradients are sums over time.
    """

    inputs: tuple[int, ...]
    scalars: tuple[int, ...]
    channels: tuple[int, ...]
    held: tuple[int, ...] = ()


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
    Of several the one nearest to the derivative, which leaves least to compute and read again.

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

    def behind(point: tuple[int, bool]) -> list[tuple[int, bool]]:
        i, used = point
        back = [(i, False)] if used else [(j, True) for j in by_state & {*graph.arguments(i)}]
        if used and savable(i) and ((i, False), point) in flows:
            back = []
        return back + [b for a, b in flows if a == point]

    def reach(
        starts: Iterable[tuple[int, bool]],
        onward: Callable[[tuple[int, bool]], list[tuple[int, bool]]],
    ) -> dict[tuple[int, bool], tuple[int, bool] | None]:
        came: dict[tuple[int, bool], tuple[int, bool] | None] = {}
        points: list[tuple[tuple[int, bool], tuple[int, bool] | None]]
        points = [(start, None) for start in starts]
        while points:
            point, before = points.pop()
            if point not in came:
                came[point] = before
                points += [(following, point) for following in onward(point)]
        return came

    while True:
        came = reach(sources, ahead)
        end = next((point for point in sorted(ends) if point in came), None)
        if end is None:
            near = reach(ends, behind)
            return [i for i in sorted(by_state) if (i, True) in near and (i, False) not in near]
        point = end
        while (before := came[point]) is not None:
            if (point, before) in flows:
                flows.remove((point, before))
            else:
                flows.add((before, point))
            point = before
