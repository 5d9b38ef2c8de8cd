import pytest
import torch

from spikestrap import SpikestrapError
from spikestrap.neuron import LIF, RefractoryLIF


@pytest.mark.parametrize(
    ("reset", "spikes", "v", "wait"),
    [
        # v 1.5 fires, 0; deaf for 2 steps; 0.75; 0.375 + 0.75 fires.
        ("zero", [1, 0, 0, 0, 1], 0.0, 2),
        # v 1.5 fires, 0.5; deaf; 0.25 + 0.75 is not over 1; 0.5 + 0.75 fires, 0.25.
        ("subtract", [1, 0, 0, 0, 1], 0.25, 2),
        # v 1.5 fires and stays; deaf; 0.75 + 0.75 fires; deaf again.
        ("none", [1, 0, 0, 1, 0], 1.5, 1),
    ],
)
def test_by_hand(reset, spikes, v, wait):
    neuron = RefractoryLIF(1.0, 0.5, 2, reset=reset)
    z = torch.tensor([1.5, 1.5, 1.5, 0.75, 0.75]).view(5, 1, 1)
    out, state = neuron(z, return_state=True)
    assert out.flatten().tolist() == spikes
    assert [s.item() for s in state] == [v, wait]


@pytest.mark.parametrize("reset", ["zero", "subtract", "none"])
def test_without_a_refractory_time_it_is_lif(reset):
    z = torch.randn(20, 4, 3)
    spikes, state = RefractoryLIF(1.0, 0.1, 0, reset=reset)(z, return_state=True)
    expected, (v,) = LIF(1.0, 0.1, reset=reset)(z, return_state=True)
    assert torch.equal(spikes, expected)
    assert torch.equal(state[0], v)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_bounds_the_rate(steps):
    neuron = RefractoryLIF(1.0, 0.0, torch.tensor([0.0, float(steps)]))
    spikes = neuron(torch.full((60, 1, 2), 9.0))
    assert spikes.mean((0, 1)).tolist() == pytest.approx([1.0, 1 / (steps + 1)])


def test_steps_are_whole():
    with pytest.raises(SpikestrapError, match="refractory_steps must be a whole number >= 0"):
        RefractoryLIF(1.0, 0.1, 1.5)
    with pytest.raises(SpikestrapError, match="learnable may hold threshold, voltage_decay, v_i"):
        RefractoryLIF(1.0, 0.1, 1, learnable=("refractory_steps",))
