import math

import pytest
import torch
from tests.neuron.cases import HALF_TURN

from spikestrap.neuron import RFIzhikevich


@pytest.mark.parametrize(
    ("reset", "spikes", "x", "y"),
    [
        # (2.5, 0), (1.25, 1.25) fires, (0, 1); (-0.5, 0.5) + (1, 0) = (0.5, 0.5); (0, 0.5).
        ("zero", [0, 1, 0, 0], 0.0, 0.5),
        # (2.5, 0), (1.25, 1.25) fires, (1.25, 0.25); (1.5, 0.75); (0.375, 1.125) fires.
        ("subtract", [0, 1, 0, 1], 0.375, 0.125),
        # (2.5, 0), (1.25, 1.25) fires; (1, 1.25) fires; (-0.125, 1.125) fires.
        ("none", [0, 1, 1, 1], -0.125, 1.125),
    ],
)
def test_by_hand(reset, spikes, x, y):
    neuron = RFIzhikevich(1.0, **HALF_TURN, reset=reset)
    z = torch.tensor([2.5, 0.0, 1.0, 0.0]).view(4, 1, 1)
    out, state = neuron(z, return_state=True)
    assert out.flatten().tolist() == spikes
    assert [s.item() for s in state] == pytest.approx([x, y], abs=1e-5)


@pytest.mark.parametrize("reset", ["zero", "subtract", "none"])
def test_fires_for_a_swing_about_a_negative_mean_too(reset):
    """So on rhythmic inputs its rate is no monotone function of the mean."""
    swing = 1 + torch.cos(2 * math.pi / 8 * torch.arange(16.0)).view(16, 1, 1)
    values = torch.tensor([-2.0, 0.0, 2.0])
    neuron = RFIzhikevich(1.0, 8.0, 0.1, reset=reset)
    below, none, above = neuron(values * swing).mean(0)[0]
    assert 0 == none < below < above
    assert neuron(values.expand(16, 1, 3))[:, 0, 0].sum() == 0  # which a constant one does not


def test_an_imaginary_input_fires_it_at_once():
    z = torch.tensor([1.5j, 0.25j, 1j]).view(3, 1, 1)
    # y = 1.5 fires and falls to 1; 0.5 + 0.25 does not; x = -0.5, so (0.75 - 0.5) / 2 + 1 does.
    assert RFIzhikevich(1.0, **HALF_TURN)(z).flatten().tolist() == [1, 0, 1]
