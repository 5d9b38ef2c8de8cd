import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.neuron.cases import backends, seeds

from spikestrap import SpikestrapError
from spikestrap.kernel import use_backend
from spikestrap.neuron import Delta, SigmaDelta


def test_delta_by_hand():
    z = torch.tensor([1.0, 1.5, 1.75, -1.0, -1.0]).view(5, 1, 1)
    out, (sent,) = Delta(0.5)(z, return_state=True)
    # Changes: 1; 0.5, which reaches it; 0.25, which does not; -2.5; 0.
    assert out.flatten().tolist() == [1.0, 0.5, 0.0, -2.5, 0.0]
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
    assert (out.abs()[out != 0] >= threshold * (1 - 1e-6)).all()


def sent_by_hand(values, threshold):
    """What lava-dl and Lava send of one value after another."""
    held, out = 0.0, []
    for value in values:
        change = value - held
        out.append(change if abs(change) >= threshold else 0.0)
        held += out[-1]
    return out


@given(seeds, backends)
def test_a_change_that_just_reaches_the_threshold_is_sent(seed, backend):
    dtype, name = backend
    draw = torch.Generator().manual_seed(seed)
    eighths = torch.randint(-6, 7, (12, 1, 4), generator=draw).to(dtype) / 8  # sums are exact
    for neuron, values in (
        (Delta(0.25), eighths),
        (SigmaDelta(0.25, activation="identity"), eighths.cumsum(0)),
        (SigmaDelta(0.25, bias=0.125), torch.relu(eighths.cumsum(0) + 0.125)),
    ):
        with use_backend(name):
            out = neuron.to(dtype)(eighths)
        for i in range(4):
            assert out[:, 0, i].tolist() == sent_by_hand(values[:, 0, i].tolist(), 0.25)


@pytest.mark.parametrize("backend", ["reference", "fused"])
def test_the_gradient_at_the_threshold_is_the_surrogates(backend):
    neuron = Delta(0.5, learnable=("threshold",))
    with use_backend(backend):
        neuron(torch.full((1, 1, 1), 0.5)).sum().backward()
    # Nothing over it; a change of 0.5, width 0.5: slope 1 / (2 * 0.5).
    assert neuron.threshold.grad.item() == pytest.approx(-0.5)


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
