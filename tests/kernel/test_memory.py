"""What kernels may not read by themselves, they leave to torch."""

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from spikestrap.kernel import events, pooling
from spikestrap.kernel.curve import curve

TABLE = (
    torch.zeros(1),
    torch.full((1,), 0.25),
    torch.linspace(0, 1, 5).view(1, 5),
    torch.ones(1, 6),
)


def spikes(shape):
    return (torch.rand(shape) < 0.2).float()


CASES = {
    "curve": (lambda z: curve(z, *TABLE, 4), lambda: torch.rand(3, 40)),
    "pooling": (
        lambda z: pooling.pool(z, (2, 2), (2, 2), (0, 0), 4),
        lambda: torch.rand(2, 3, 4, 4),
    ),
    "linear": (lambda z: events.linear(z, torch.ones(40, 33), None), lambda: spikes((4, 32, 33))),
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
