import math

import pytest
import torch
from tests.neuron.cases import HALF_TURN

from spikestrap.neuron import RF


@pytest.mark.parametrize(
    ("reset", "x", "y"),
    [
        # x, y: (-2, 0), (-1, -1), (0, -1), (3, -0.5): over 1, but y < 0 still; then
        # (1.75, 1.25): over 1, and y passes 0. That becomes (0.25, 1.5).
        ("none", 0.25, 1.5),
        # (1.75, 1.25) becomes (0, 0).
        ("zero", 0.0, 0.0),
        # (1.75, 1.25) becomes (0.75, 1.25), then (-0.25, 1).
        ("subtract", -0.25, 1.0),
    ],
)
def test_by_hand(reset, x, y):
    neuron = RF(1.0, **HALF_TURN, reset=reset)
    z = torch.tensor([-2.0, 0.0, 0.0, 2.5, 0.0, 0.0]).view(6, 1, 1)
    spikes, state = neuron(z, return_state=True)
    assert spikes.flatten().tolist() == [0, 0, 0, 0, 1, 0]
    assert [s.item() for s in state] == pytest.approx([x, y], abs=1e-5)


def test_an_imaginary_input_turns_the_phase():
    # (0, -1), (0.5, -0.5) + (2, 1) = (2.5, 0.5): over 1, and y passed 0.
    z = torch.tensor([-1j, 2 + 1j]).view(2, 1, 1)
    assert RF(1.0, **HALF_TURN)(z).flatten().tolist() == [0, 1]


def test_hears_its_own_period_best():
    """Swings of one amplitude; it fires for those near its period alone."""
    time = torch.arange(200.0).view(-1, 1, 1)
    rates = {
        period: RF(3.5, 10.0, 0.1)(torch.cos(2 * math.pi * time / period)).mean().item()
        for period in (4.0, 7.0, 10.0, 16.0, 40.0)
    }
    assert rates[10.0] == pytest.approx(1 / 10, abs=0.01)
    assert [period for period, rate in rates.items() if rate > 0] == [10.0]


def test_the_phase_gates_the_gradient():
    z = torch.tensor([-2.0, 0.0, 0.0, 2.5, 0.0]).view(5, 1, 1).requires_grad_()
    RF(1.0, **HALF_TURN)(z).sum().backward()
    # x[4] = 1.75 has slope exp(-0.75) / 2; z[4] and z[3] reach it by 1 and 1/2.
    slope = math.exp(-0.75) / 2
    assert z.grad.flatten()[3:].tolist() == pytest.approx([slope / 2, slope], rel=1e-4)
