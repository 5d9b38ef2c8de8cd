import pytest
import torch

from spikestrap.kernel.expression import Graph
from spikestrap.kernel.generate import saving


def evaluate(graph, targets, values):
    """The targets' values in torch, given those of the nodes that read."""
    one = {
        **{op: getattr(torch, op) for op in ("sub", "mul", "div", "neg", "abs", "exp", "log")},
        **{op: getattr(torch, op) for op in ("add", "sqrt", "sin", "cos", "tanh", "sigmoid")},
        **{op: getattr(torch, op) for op in ("sign", "relu", "maximum", "minimum", "where")},
        **{op: getattr(torch, op) for op in ("gt", "ge", "lt", "le", "eq", "floor", "pow")},
        "clamp_min": torch.maximum,
        "clamp_max": torch.minimum,
        "detach": torch.detach,
    }
    values = dict(values)
    for i in graph.needed(targets, values):
        node = graph.nodes[i]
        if node.op == "number":
            values[i] = torch.tensor(node.value, dtype=torch.float64)
        elif i not in values:
            values[i] = one[node.op](*(values[a] for a in node.args))
    return [values[i] for i in targets]


UNARY = ("neg", "abs", "exp", "log", "sqrt", "sin", "cos", "tanh", "sigmoid", "relu", "floor")
BINARY = ("add", "sub", "mul", "div", "maximum", "minimum")


@pytest.mark.parametrize(
    "op", [*UNARY, *BINARY, "pow", "clamp_min", "clamp_max", "where", "detach"]
)
def test_derivatives_are_torchs(op):
    a = torch.tensor([0.3, 0.5, 0.5, 0.9], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([0.7, 0.5, 0.2, 0.9], dtype=torch.float64, requires_grad=True)
    graph = Graph()
    x, y, half = graph("input"), graph("state"), graph.number(0.5)
    if op == "where":
        out = graph(op, graph("gt", x, half), x, graph("mul", x, y))
    elif op in ("pow", "clamp_min", "clamp_max"):
        out = graph(op, x, half)
    else:
        out = graph(op, *((x, y) if op in BINARY else (x,)))
    grads = graph.gradients({out: graph.number(1.0)}, [x, y])
    (value,) = evaluate(graph, [out], {x: a, y: b})
    expected = [None, None]
    if value.requires_grad and op not in ("clamp_min", "clamp_max"):
        expected = torch.autograd.grad(value.sum(), (a, b), allow_unused=True)
    if op == "clamp_min":
        expected = torch.autograd.grad(a.clamp(min=0.5).sum(), a)
    if op == "clamp_max":
        expected = torch.autograd.grad(a.clamp(max=0.5).sum(), a)
    for got, wanted in zip(evaluate(graph, grads, {x: a, y: b}), expected, strict=False):
        wanted = torch.zeros(4, dtype=torch.float64) if wanted is None else wanted
        torch.testing.assert_close(got.detach().expand(4), wanted)


def test_equal_nodes_are_one():
    graph = Graph()
    z = graph("input")
    assert graph("mul", z, z) == graph("mul", z, z)
    assert graph("mul", z, z) != graph("add", z, z)


def test_only_what_is_needed():
    graph = Graph()
    z, v = graph("input"), graph("state")
    total = graph("add", z, v)
    graph("exp", z)
    out = graph("mul", total, v)
    assert graph.needed([out]) == [z, v, total, out]
    assert graph.needed([out], given=[total]) == [v, total, out]


def test_saves_the_fewest_values():
    # Two states that meet in one value: the derivative needs that, not the states.
    graph = Graph()
    states = graph("state", value=0), graph("state", value=1)
    v = graph("mul", graph("add", *states), graph("input"))
    out = graph("exp", graph("mul", v, v))
    forward = len(graph.nodes)
    grads = graph.gradients({out: graph("grad_spikes")}, [v])
    assert len(saving(graph, grads, forward)) == 1
    # Where the states are needed apart, both.
    grads += graph.gradients({graph("mul", *states): graph("grad_spikes")}, list(states))
    assert len(saving(graph, grads, forward)) == 2
    # Linear: nothing.
    grads = graph.gradients({graph("add", *states): graph("grad_spikes")}, list(states))
    assert saving(graph, grads, forward) == []


def test_saves_what_is_nearest_to_the_derivative():
    graph = Graph()
    total = graph("add", graph("mul", graph("state"), graph("scalar")), graph("input"))
    out = graph("exp", total)
    grads = graph.gradients({out: graph("grad_spikes")}, [total])
    assert saving(graph, grads, len(graph.nodes) - 1) == [out]  # and so it needs no input again


def test_saving_may_undo_a_first_choice():
    # s0 feeds a and b, s1 only b: two values cut it, whichever path is found first.
    graph = Graph()
    s0, s1, s2 = (graph("state", value=k) for k in range(3))
    a = graph("mul", s0, s0)
    b = graph("mul", graph("add", s0, s1), s2)
    forward = len(graph.nodes)
    grad = graph("add", graph("mul", a, graph("grad_spikes")), b)
    saved = saving(graph, [grad], forward)
    assert len(saved) == 2
    given = set(graph.needed([grad], given=saved))
    assert not any(graph.nodes[i].op == "state" for i in given - set(saved))
