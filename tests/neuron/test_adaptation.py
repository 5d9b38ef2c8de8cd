import torch

from spikestrap.neuron import adaptation


def test_by_hand():
    one, half = torch.tensor(1.0), torch.tensor(0.5)
    # (3 - 1) / 2 + 1 and 2 / 4; then + 0.5, and 2 * 2 + 0.5.
    theta, r = adaptation.relax(torch.tensor(3.0), torch.tensor(2.0), one, half, 0.75 * one)
    assert (theta.item(), r.item()) == (2.0, 0.5)
    assert [x.item() for x in adaptation.rise(theta, r, one, half)] == [2.5, 4.5]
    assert [x.item() for x in adaptation.rise(theta, r, 0 * one, half)] == [2.0, 0.5]
