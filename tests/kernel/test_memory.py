"""What kernels may not read by themselves, they leave to torch."""

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from spikestrap import neuron
from spikestrap.kernel import events, pooling
from spikestrap.kernel.curve import curve

TABLE = (
    torch.zeros(1),
    torch.full((1,), 0.25),
    torch.linspace(0, 1, 5).view(1, 5),
    torch.ones(1, 6),
)
WEIGHT = torch.ones(256, 257)  # large enough for rows to be added up
LIF = neuron.LIF(threshold=1.0, voltage_decay=0.1, learnable=("threshold",))


def spikes(shape):
    return (torch.rand(shape) < 0.2).float()


CASES = {
    "curve": (lambda z: curve(z, *TABLE, 4), lambda: torch.rand(3, 40)),
    "pooling": (
        lambda z: pooling.pool(z, (2, 2), (2, 2), (0, 0), 4),
        lambda: torch.rand(2, 3, 4, 4),
    ),
    "linear": (lambda z: events.linear(z, WEIGHT, None), lambda: spikes((4, 128, 257))),
}


@pytest.mark.parametrize("name", CASES)
def test_a_trace_holds_for_another_input(name):
    run, draw = CASES[name]
    other = draw()
    torch.testing.assert_close(make_fx(run)(draw())(other), run(other))


@pytest.mark.parametrize("name", CASES)
def test_negated_tensors(name):
    run, draw = CASES[name]
    x = draw()
    torch.testing.assert_close(run(torch._neg_view(-x)), run(x))


@pytest.mark.parametrize("name", [*CASES, "neuron"])
def test_another_default_device(name):
    run, draw = CASES.get(name, (LIF, lambda: torch.rand(4, 2, 3)))
    x = draw().requires_grad_()
    expected = run(x)
    grad = torch.autograd.grad(expected.sum(), x)[0]
    with torch.device("meta"):
        found = run(x)
        assert torch.equal(torch.autograd.grad(found.sum(), x)[0], grad)
    assert torch.equal(found, expected)
