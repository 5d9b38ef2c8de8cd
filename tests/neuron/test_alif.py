import pytest
import torch

from spikestrap.neuron import ALIF, CUBA


@pytest.mark.parametrize(
    ("reset", "v"),
    [
        # Input 1.25. Threshold: 1, then 1.5 after the spike, 1.25, 1.125, 1.625 after, 1.3125.
        # r: 0, then 2, 1, 0.5, 2.75 = 0.5 + 2 * 1.125, 1.375.
        # v: 1.25, over 1; 1.875 - 1 is not over 1.25; 2.1875 - 0.5 is over 1.125; 2.34375.
        ("none", 2.34375),
        # v: 1.25 and 0; 1.25 - 1; 1.875 - 0.5 is over 1.125, and 0; 1.25.
        ("zero", 1.25),
        # v: 1.25 and 0.25; 1.375 - 1; 1.9375 - 0.5 is over, and 0.8125 = 1.9375 - 1.125; 1.65625.
        ("subtract", 1.65625),
    ],
)
def test_by_hand(reset, v):
    neuron = ALIF(
        1.0, 0.5, voltage_decay=0.5, threshold_decay=0.5, refractory_decay=0.5, reset=reset
    )
    spikes, state = neuron(torch.full((4, 1, 1), 1.25), return_state=True)
    assert spikes.flatten().tolist() == [1, 0, 1, 0]
    assert [s.item() for s in state] == [1.25, v, 1.3125, 1.375]


def test_is_cuba_before_the_first_spike():
    z = torch.rand(6, 4, 3)
    alif, cuba = ALIF(100.0, 1.0, 0.25, 0.5, v_init=0.3), CUBA(100.0, 0.25, 0.5, v_init=0.3)
    _, (u, v, theta, r) = alif(z, return_state=True)
    _, expected = cuba(z, return_state=True)
    assert torch.equal(u, expected[0])
    assert torch.equal(v, expected[1])
    assert (theta == 100).all()
    assert (r == 0).all()


def test_adaptation_makes_it_sparser():
    z = 0.5 * torch.rand(60, 20, 5)
    rates = [ALIF(1.0, step, reset="subtract")(z).mean().item() for step in (0.0, 0.5, 2.0)]
    assert rates[0] > rates[1] > rates[2] > 0
