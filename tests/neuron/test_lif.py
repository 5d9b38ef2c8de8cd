import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.neuron.cases import (
    check_equations,
    check_gradients,
    draw_input,
    draw_parameters,
    options,
    seeds,
)

from spikestrap.kernel import use_backend
from spikestrap.neuron import CUBA, LIF

BACKENDS = st.sampled_from(
    [
        (torch.float32, "fused"),
        (torch.float32, "reference"),
        (torch.float64, "auto"),
    ]
)


@given(seeds, st.integers(1, 12), st.booleans(), st.booleans(), BACKENDS, options)
def test_is_its_equations(seed, time_steps, per_channel, grid, backend, settings):
    check_equations(LIF, seed, time_steps, per_channel, grid, *backend, **settings)


@given(seeds, st.integers(1, 12), st.booleans(), BACKENDS, options)
def test_gradients_are_those_of_forward_differentiation(
    seed, time_steps, per_channel, backend, settings
):
    check_gradients(LIF, seed, time_steps, per_channel, *backend, **settings)


@given(seeds, st.integers(1, 12), st.booleans(), BACKENDS, options)
def test_is_cuba_without_a_current(seed, time_steps, per_channel, backend, settings):
    dtype, name = backend
    parameters = draw_parameters(LIF, seed, 3 if per_channel else None)
    outs = []
    for kind, more in ((LIF, {}), (CUBA, {"current_decay": 1.0})):
        neuron = kind(**parameters, **more, **settings, learnable=tuple(parameters)).to(dtype)
        z = draw_input(seed, (time_steps, 2, 3)).to(dtype).requires_grad_()
        with use_backend(name):
            spikes, state = neuron(z, return_state=True)
        (spikes.sum() + state[-1].sum()).backward()
        grads = [getattr(neuron, parameter).grad for parameter in parameters]
        outs.append((spikes, state[-1], z.grad, *grads))
    for of_lif, of_cuba in zip(*outs, strict=True):
        assert torch.equal(of_lif, of_cuba)


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
