import pytest
import torch

from spikestrap.neuron import LIF, PLIF


@pytest.mark.parametrize(
    ("reset", "spikes", "v"),
    [
        # k = 1/2, z = 1.5. v: 0.75; 1.125 fires; ...
        ("zero", [0, 1, 0], 0.75),
        ("subtract", [0, 1, 0], 0.8125),
        ("none", [0, 1, 1], 1.3125),
    ],
)
def test_by_hand(reset, spikes, v):
    neuron = PLIF(1.0, 0.0, reset=reset)
    out, state = neuron(torch.full((3, 1, 1), 1.5), return_state=True)
    assert out.flatten().tolist() == spikes
    assert state[0].item() == v


def test_is_lif_with_its_input_scaled():
    z = torch.randn(20, 4, 3)
    k = torch.sigmoid(torch.tensor(-1.0)).item()
    _, (v,) = PLIF(100.0, -1.0)(z, return_state=True)
    _, (expected,) = LIF(100.0, k)(k * z, return_state=True)
    torch.testing.assert_close(v, expected)


def test_learns_its_time_constant():
    z = torch.randn(30, 40, 1)
    _, (target,) = PLIF(1e3, -1.5, learnable=())(z, return_state=True)
    plif = PLIF(1e3)
    optimizer = torch.optim.Adam(plif.parameters(), lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        _, (v,) = plif(z, return_state=True)
        ((v - target) ** 2).mean().backward()
        optimizer.step()
    assert plif.w.item() == pytest.approx(-1.5, abs=0.05)
