import pytest
import torch

from spikestrap import SpikestrapError
from spikestrap.neuron import LIF, NoisyLIF

DISTRIBUTIONS = pytest.mark.parametrize("distribution", ["gaussian", "logistic"])


@pytest.mark.parametrize(
    ("reset", "spikes", "v"),
    [
        # Fires over 0.5, 1.5 and 1. v: 1.25 fires; 1.25 does not; 1.875 fires.
        ("zero", [1, 0, 1], 0.0),
        # 1.25 fires, 0.25; 1.375 does not; 1.9375 fires.
        ("subtract", [1, 0, 1], 0.9375),
        # 1.25, 1.875 and 2.1875 fire.
        ("none", [1, 1, 1], 2.1875),
    ],
)
def test_by_hand(reset, spikes, v):
    neuron = NoisyLIF(1.0, 0.5, 0.5, reset=reset)
    z = torch.full((1, 1), 1.25)
    state, out = neuron.init_state(z), []
    for noise in (-1.0, 1.0, 0.0):
        fired, state = neuron.step(z, state, torch.full((1, 1), noise))
        out.append(fired.item())
    assert out == spikes
    assert state[0].item() == v


@DISTRIBUTIONS
@pytest.mark.parametrize("reset", ["zero", "subtract", "none"])
def test_without_noise_it_is_lif(distribution, reset):
    z = torch.randn(20, 4, 3)
    noisy = NoisyLIF(1.0, 0.1, 0.0, distribution=distribution, reset=reset)
    spikes, state = noisy(z, return_state=True)
    expected, expected_state = LIF(1.0, 0.1, reset=reset)(z, return_state=True)
    assert torch.equal(spikes, expected)
    assert torch.equal(state[0], expected_state[0])


@DISTRIBUTIONS
def test_fires_with_the_probability_of_its_distribution(distribution):
    z = torch.linspace(0.5, 1.5, 9).view(1, 1, 9).expand(1, 4000, 9)
    torch.manual_seed(0)
    rate = NoisyLIF(1.0, 1.0, 0.3, distribution=distribution)(z, time_steps=10).mean((0, 1))
    over = (z[0, 0] - 1.0) / 0.3
    expected = (
        torch.sigmoid(over)
        if distribution == "logistic"
        else torch.distributions.Normal(0.0, 1.0).cdf(over)
    )
    # Five standard errors of a rate over 40000 draws.
    assert (rate - expected).abs().max() < 5 * 0.5 / 40000**0.5


def test_the_seed_makes_it_repeatable():
    noisy, z = NoisyLIF(1.0, 0.1, 0.5), torch.rand(20, 50, 3)
    outs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        outs.append(noisy(z))
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])
    # And so in evaluation: the noise is the neuron's, not the training's.
    torch.manual_seed(0)
    assert torch.equal(noisy.eval()(z), outs[0])


def test_a_spike_by_noise_resets():
    """The reset by subtraction takes the threshold away, not what noise made of it."""
    torch.manual_seed(0)
    z = torch.full((1, 1000, 1), 0.9)
    spikes, (v,) = NoisyLIF(1.0, 0.0, 0.2, reset="subtract")(z, return_state=True)
    assert 0 < spikes.mean() < 1
    torch.testing.assert_close(v, z[0] - spikes[0])


def test_refuses_another_distribution():
    with pytest.raises(SpikestrapError, match="one of gaussian, logistic; got 'uniform'"):
        NoisyLIF(1.0, 0.1, distribution="uniform")
