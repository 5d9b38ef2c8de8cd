import pytest
import torch
from tests.neuron.cases import HALF_TURN

from spikestrap.neuron import AdRFIzhikevich, RFIzhikevich


@pytest.mark.parametrize(
    ("reset", "x", "y"),
    [
        # Threshold: 1; 1, and 1.5 after the spike; 1.25; 1.125, and 1.625 after.
        # r: 0; 0, and 2 after; 0.5; 0.125, and 0.125 + 2 * 1.125 = 2.375 after.
        # (2.5, 0); (1.25, 1.25) fires; (4, 1.25) - 0.5 does not; (1.375, 2.625) fires.
        ("none", 1.375, 2.625),
        # (1.25, 1.25) fires, (0, 1); (3.5, 0.5); (1.5, 2) fires, (0, 1.125).
        ("zero", 0.0, 1.125),
        # (1.25, 1.25) fires, (1.25, 0.25); (4.5, 0.75); (1.875, 2.625) fires, - 1.125.
        ("subtract", 1.875, 1.5),
    ],
)
def test_by_hand(reset, x, y):
    neuron = AdRFIzhikevich(
        1.0, 0.5, **HALF_TURN, threshold_decay=0.5, refractory_decay=0.75, reset=reset
    )
    z = torch.tensor([2.5, 0.0, 4.0, 0.0]).view(4, 1, 1)
    spikes, state = neuron(z, return_state=True)
    assert spikes.flatten().tolist() == [0, 1, 0, 1]
    assert [s.item() for s in state] == pytest.approx([x, y, 1.625, 2.375], abs=1e-4)


@pytest.mark.parametrize("reset", ["zero", "subtract", "none"])
def test_without_adaptation_it_is_rf_iz(reset):
    adaptive = AdRFIzhikevich(1.0, 0.0, **HALF_TURN, refractory_decay=1.0, reset=reset)
    plain = RFIzhikevich(1.0, **HALF_TURN, reset=reset)
    z = 2 * torch.randn(40, 6, 3)
    assert plain(z).sum() > 0
    assert torch.equal(adaptive(z), plain(z))
