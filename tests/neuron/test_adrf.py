import pytest
import torch
from tests.neuron.cases import HALF_TURN

from spikestrap.neuron import RF, AdRF

# (-2, 0), (-1, -1), (0, -1), (3, -0.5), (1.75, 1.25) fires; (-3.75, 1.5), (-2.625, -1.125),
# (5.25, -1.875), (3.5625, 1.6875) passes 0 again.
Z = torch.tensor([-2.0, 0.0, 0.0, 2.5, 0.0, -4.0, 0.0, 6.0, 0.0]).view(9, 1, 1)


@pytest.mark.parametrize(
    ("step", "last", "theta", "r"),
    [
        # After the first spike threshold 1.5 and r 2: 3.5625 is over 3.5. Then 2 and 5.
        (0.5, 1, 2.0, 5.0),
        # Threshold 2 and r 2: it is not over 4.
        (1.0, 0, 2.0, 2.0),
    ],
)
def test_by_hand(step, last, theta, r):
    neuron = AdRF(1.0, step, **HALF_TURN, threshold_decay=0.0, refractory_decay=0.0)
    spikes, state = neuron(Z, return_state=True)
    assert spikes.flatten().tolist() == [0, 0, 0, 0, 1, 0, 0, 0, last]
    assert [s.item() for s in state] == pytest.approx([3.5625, 1.6875, theta, r], abs=1e-4)


@pytest.mark.parametrize(
    ("reset", "x", "y"),
    [
        # (0, 0) after the first spike; (-4, 0), (-2, -2), (6, -2), (4, 2): over 3.5, fires.
        ("zero", 0.0, 0.0),
        # (0.75, 1.25); (-4.25, 1), (-2.625, -1.625), (5.5, -2.125), (3.8125, 1.6875): fires,
        # and falls by the threshold, by now 1.5.
        ("subtract", 2.3125, 1.6875),
    ],
)
def test_resets_by_hand(reset, x, y):
    neuron = AdRF(1.0, 0.5, **HALF_TURN, threshold_decay=0.0, refractory_decay=0.0, reset=reset)
    spikes, state = neuron(Z, return_state=True)
    assert spikes.flatten().tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 1]
    assert [s.item() for s in state] == pytest.approx([x, y, 2.0, 5.0], abs=1e-4)


@pytest.mark.parametrize("reset", ["zero", "subtract", "none"])
def test_without_adaptation_it_is_rf(reset):
    adaptive = AdRF(1.0, 0.0, **HALF_TURN, refractory_decay=1.0, reset=reset)
    plain = RF(1.0, **HALF_TURN, reset=reset)
    z = 2 * torch.randn(40, 6, 3)
    assert plain(z).sum() > 0
    assert torch.equal(adaptive(z), plain(z))
