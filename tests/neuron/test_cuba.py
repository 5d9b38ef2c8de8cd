import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.neuron.cases import backends, check_equations, check_gradients, options, seeds

from spikestrap.neuron import CUBA


@given(seeds, st.integers(1, 12), st.booleans(), st.booleans(), backends, options)
def test_is_its_equations(seed, time_steps, per_channel, grid, backend, settings):
    check_equations(CUBA, seed, time_steps, per_channel, grid, *backend, **settings)


@given(seeds, st.integers(1, 12), st.booleans(), backends, options)
def test_gradients_are_those_of_forward_differentiation(
    seed, time_steps, per_channel, backend, settings
):
    check_gradients(CUBA, seed, time_steps, per_channel, *backend, **settings)


@pytest.mark.parametrize(
    ("reset", "spikes", "u", "v"),
    [
        # u: 1, 1.5, 0.75. v: 1, which is not over 1; then 2, which is; half of the rest + 0.75.
        ("zero", [0, 1, 0], 0.75, 0.75),
        ("subtract", [0, 1, 1], 0.75, 0.25),
        ("none", [0, 1, 1], 0.75, 1.75),
    ],
)
def test_by_hand(reset, spikes, u, v):
    neuron = CUBA(threshold=1.0, current_decay=0.5, voltage_decay=0.5, reset=reset)
    z = torch.tensor([1.0, 1.0, 0.0]).view(3, 1, 1)
    out, state = neuron(z, return_state=True)
    assert out.flatten().tolist() == spikes
    assert [s.item() for s in state] == [u, v]


def test_gradient_by_hand():
    neuron = CUBA(1.0, 0.5, 0.5, learnable=("threshold", "current_decay", "voltage_decay"))
    z = torch.tensor([1.0, 1.0]).view(2, 1, 1).requires_grad_()
    neuron(z).sum().backward()
    # v[0] = 1 is at the threshold, slope 1/2; v[1] = 2 has slope exp(-1)/2, and u[0] = v[0] = 1
    # before it. z[0] reaches v[1] half through u and half through v.
    first, second = 0.5, math.exp(-1) / 2
    assert z.grad.flatten().tolist() == pytest.approx([first + second, second])
    assert neuron.threshold.grad.item() == pytest.approx(-first - second)
    assert neuron.current_decay.grad.item() == pytest.approx(-second)
    assert neuron.voltage_decay.grad.item() == pytest.approx(-second)


def test_current_decays_by_its_own_factor():
    neuron = CUBA(threshold=100.0, current_decay=0.25, voltage_decay=1.0)
    z = torch.zeros(5, 1, 1)
    z[0] = 1
    _, (u, v) = neuron(z, return_state=True)
    # voltage_decay = 1: the membrane is the current itself.
    assert u.item() == v.item() == pytest.approx(0.75**4)
