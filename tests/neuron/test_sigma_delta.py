import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.neuron.cases import seeds

from spikestrap import SpikestrapError
from spikestrap.neuron import Delta, SigmaDelta


def test_delta_by_hand():
    z = torch.tensor([1.0, 1.5, 1.75, -1.0, -1.0]).view(5, 1, 1)
    out, (sent,) = Delta(0.5)(z, return_state=True)
    # Changes: 1; 0.5, which is not over; 0.75 since 1; -2.75; 0.
    assert out.flatten().tolist() == [1.0, 0.0, 0.75, -2.75, 0.0]
    assert sent.item() == -1.0


@pytest.mark.parametrize(
    ("activation", "out"),
    [
        # Sums with the bias 0.25: 1.25, 1.5, 2.25, -1.75, -1.5.
        ("identity", [1.25, 0.0, 1.0, -4.0, 0.0]),
        ("relu", [1.25, 0.0, 1.0, -2.25, 0.0]),
    ],
)
def test_sigma_delta_by_hand(activation, out):
    neuron = SigmaDelta(0.5, activation=activation, bias=0.25)
    z = torch.tensor([1.0, 0.25, 0.75, -4.0, 0.25]).view(5, 1, 1)
    changes, (total, sent) = neuron(z, return_state=True)
    assert changes.flatten().tolist() == out
    assert total.item() == -1.75
    assert sent.item() == sum(out)


@given(seeds, st.sampled_from(["relu", "sigmoid", "identity"]), st.sampled_from([0.05, 0.5]))
def test_what_was_sent_follows_the_activation(seed, activation, threshold):
    z = torch.randn(20, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    out = SigmaDelta(threshold, activation=activation).double()(z)
    a = z.cumsum(0)
    a = {"relu": torch.relu, "sigmoid": torch.sigmoid, "identity": lambda x: x}[activation](a)
    assert (out.cumsum(0) - a).abs().max() <= threshold * (1 + 1e-6)
    # Nothing small is sent.
    assert (out.abs()[out != 0] > threshold * (1 - 1e-6)).all()


def test_the_gradient_goes_straight_through():
    z = torch.randn(6, 2, 3).requires_grad_()
    weight = torch.randn(6, 2, 3)
    (SigmaDelta(0.5, activation="identity")(z) * weight).sum().backward()
    # y[t] = z[t] in the gradient: what it summed up less what it sent before.
    torch.testing.assert_close(z.grad, weight)


def test_the_threshold_learns_by_the_surrogate():
    neuron = Delta(0.5, learnable=("threshold",))
    neuron(torch.ones(1, 1, 1)).sum().backward()
    # A change of 1, that is 0.5 over; width 0.5: slope exp(-1) / (2 * 0.5).
    assert neuron.threshold.grad.item() == pytest.approx(-math.exp(-1))


def test_refuses_an_unknown_activation():
    with pytest.raises(SpikestrapError, match="one of relu, sigmoid, identity; got 'tanh'"):
        SigmaDelta(0.5, activation="tanh")
