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

from spikestrap.neuron import CUBA, LIF


@given(seeds, st.integers(1, 12), st.booleans(), st.booleans(), backends, options)
def test_is_its_equations(seed, time_steps, per_channel, grid, backend, settings):
    check_equations(LIF, seed, time_steps, per_channel, grid, *backend, **settings)


@given(seeds, st.integers(1, 12), st.booleans(), backends, options)
def test_gradients_are_those_of_forward_differentiation(
    seed, time_steps, per_channel, backend, settings
):
    check_gradients(LIF, seed, time_steps, per_channel, *backend, **settings)


@given(seeds, st.integers(1, 12), st.booleans(), backends, options)
def test_is_cuba_without_a_current(seed, time_steps, per_channel, backend, settings):
    check_special_case(
        LIF, CUBA, {"current_decay": 1.0}, seed, time_steps, per_channel, *backend, **settings
    )


@pytest.mark.parametrize(
    ("reset", "spikes", "v"),
    [
        # v 0.75, 1.125 -> fires, ...
        ("zero", [0, 1, 0], 0.75),
        ("subtract", [0, 1, 0], 0.8125),
        ("none", [0, 1, 1], 1.3125),
    ],
)
def test_by_hand(reset, spikes, v):
    z = torch.full((3, 1, 1), 0.75)
    out, state = LIF(threshold=1.0, voltage_decay=0.5, reset=reset)(z, return_state=True)
    assert out.flatten().tolist() == spikes
    assert state[0].item() == v


def test_leaks_to_its_fixed_point():
    # v = z / decay in the limit; under the threshold it never fires.
    lif = LIF(threshold=4.0, voltage_decay=0.25)
    spikes, (v,) = lif(torch.ones(1, 1, 1), time_steps=200, return_state=True)
    assert v.item() == pytest.approx(4.0, rel=1e-6)
    assert spikes.sum() == 0
