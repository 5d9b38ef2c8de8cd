import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.neuron.cases import (
    backends,
    check_equations,
    check_gradients,
    check_special_case,
    options,
    seeds,
)

from spikestrap.neuron import IF, LIF


@given(seeds, st.integers(1, 12), st.booleans(), st.booleans(), backends, options)
def test_is_its_equations(seed, time_steps, per_channel, grid, backend, settings):
    check_equations(IF, seed, time_steps, per_channel, grid, *backend, **settings)


@given(seeds, st.integers(1, 12), st.booleans(), backends, options)
def test_gradients_are_those_of_forward_differentiation(
    seed, time_steps, per_channel, backend, settings
):
    check_gradients(IF, seed, time_steps, per_channel, *backend, **settings)


@given(seeds, st.integers(1, 12), st.booleans(), backends, options)
def test_is_lif_without_a_leak(seed, time_steps, per_channel, backend, settings):
    check_special_case(
        IF, LIF, {"voltage_decay": 0.0}, seed, time_steps, per_channel, *backend, **settings
    )


@pytest.mark.parametrize("threshold", [1.0, 2.5])
@pytest.mark.parametrize("time_steps", [1, 2, 3, 8, 17])
def test_rounds_to_the_rates_that_there_are(threshold, time_steps):
    # From half a threshold the k-th spike falls where T z > (k - 1/2) thresholds, strictly.
    share = torch.linspace(-0.5, 1.5, 801, dtype=torch.float64)
    share = share[((share * time_steps) % 1 - 0.5).abs() > 1e-6]  # off the steps themselves
    neuron = IF(threshold, reset="subtract", v_init=threshold / 2).double()
    rates = neuron((share * threshold).view(1, 1, -1), time_steps=time_steps).mean(0).flatten()
    torch.testing.assert_close(
        rates, (share * time_steps).round().clamp(0, time_steps) / time_steps
    )


def test_does_not_fire_at_a_step_itself():
    neuron = IF(1.0, reset="subtract", v_init=0.5)
    z = torch.tensor([[[0.125, 0.375, 0.625, 0.875]]])  # (k - 1/2) / 4: exact in floats
    assert neuron(z, time_steps=4).sum(0).flatten().tolist() == [0, 1, 2, 3]


def test_counts_up_to_the_threshold():
    # Reset to zero: every 4th step, since 3 inputs only reach the threshold.
    spikes = IF(threshold=3.0)(torch.ones(1, 1, 1), time_steps=8)
    assert spikes.flatten().tolist() == [0, 0, 0, 1, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("reset", "spikes", "membranes"),
    [
        ("zero", [0, 1, 0, 1], [0.75, 0.0, 0.75, 0.0]),
        ("subtract", [0, 1, 1, 0], [0.75, 0.5, 0.25, 1.0]),
        ("none", [0, 1, 1, 1], [0.75, 1.5, 2.25, 3.0]),
    ],
)
def test_trace_of_each_reset_by_hand(reset, spikes, membranes):
    # 3/4 a step, exact in floats; the last membrane by subtraction is 1: not over the threshold.
    neuron, z, state = IF(threshold=1.0, reset=reset), torch.full((1, 1, 1), 0.75), None
    for spike, membrane in zip(spikes, membranes, strict=True):
        fired, state = neuron(z, state, return_state=True)
        assert (fired.item(), state[0].item()) == (spike, membrane)
