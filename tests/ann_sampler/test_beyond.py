"""Where what was sampled is constant, the curve is that of the neuron at stronger inputs."""

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spikestrap import SpikestrapWarning
from spikestrap.ann_sampler import SLOPES, AnnSampler
from spikestrap.neuron import IF, LIF

CURVE = ("origin", "width", "values", "slopes", "residual", "idle_slopes")


def response(neuron):
    """Of the neuron, for `fit`."""
    return lambda z, time_steps: neuron(z[None], time_steps=time_steps).mean(0)


def rounding(threshold):
    """IF from half a threshold, reset by subtraction: inputs rounded to k / T."""
    return IF(threshold, reset="subtract", v_init=threshold / 2)


def sampled(neuron, low, high, time_steps=4, channels=3, **options):
    """By even inputs."""
    z = torch.linspace(low, high, 40 * channels).view(1, 40, channels)
    sampler = AnnSampler(channels=channels, **options)
    sampler.append(neuron(z, time_steps=time_steps), z)
    return sampler


def fitted(sampler, respond=None):
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", SpikestrapWarning)
        sampler.fit(respond)
    return [str(warning.message) for warning in warned]


def curves(sampler):
    return [getattr(sampler, name) for name in CURVE]


def same(one, other):
    return all(map(torch.equal, curves(one), curves(other)))


@settings(deadline=None, max_examples=25)
@given(
    threshold=st.sampled_from([0.01, 1.0, 300.0]),
    time_steps=st.sampled_from([1, 2, 4, 8]),
    per=st.sampled_from(["layer", "channel"]),
    ends=st.sampled_from([(-2.0, -1.0), (-0.1, 0.05), (0.0, 0.0), (2.0, 3.0), (2.0, 2.0)]),
)
def test_beyond_its_samples_the_curve_is_the_neurons(threshold, time_steps, per, ends):
    neuron = rounding(threshold)
    low, high = (threshold * end for end in ends)
    sampler = sampled(neuron, low, high, time_steps, per=per)
    fitted(sampler, response(neuron))
    probe = torch.linspace(-0.5, 1.5, 1200).view(-1, 3)
    known = (time_steps * probe).round().clamp(0, time_steps) / time_steps
    distance = (sampler(threshold * probe) - known).abs()
    # Next to a step; cells may be as wide as one, where inputs lie far off.
    assert distance.mean() < 0.25 / time_steps
    assert distance.max() < 1.01 / time_steps
    # And at its samples it is what they are.
    ends = torch.tensor([[low] * 3, [high] * 3])
    assert torch.equal(sampler(ends), torch.full((2, 3), float(ends[0, 0] > 0)))


@pytest.mark.parametrize("slope", SLOPES)
@pytest.mark.parametrize("ends", [(-0.2, 0.1), (-3.0, -2.0), (2.0, 3.0)])
def test_the_middle_half_of_the_samples_learns(slope, ends):
    neuron = IF(1.0)
    sampler = sampled(neuron, *ends, slope=slope)
    fitted(sampler, response(neuron))
    quarter = (ends[1] - ends[0]) / 4
    z = torch.linspace(ends[0] + 1.1 * quarter, ends[1] - 1.1 * quarter, 30).view(10, 3)
    z.requires_grad_()
    sampler(z).sum().backward()
    assert z.grad.max() > 0.01
    assert (z.grad > 0).float().mean() >= 0.5


@pytest.mark.parametrize("ends", [(-2.0, -1.0), (2.0, 3.0)])
def test_statistics_and_warnings_are_those_of_the_samples(ends):
    neuron = IF(1.0)
    alone, other = (sampled(neuron, *ends) for _ in range(2))
    before = alone.statistics.pairs.clone()
    state = torch.get_rng_state()
    warned = fitted(alone), fitted(other, response(neuron))
    assert warned[0] == warned[1]
    assert len(warned[0]) == 1
    assert not same(alone, other)
    for sampler in (alone, other):
        assert torch.equal(sampler.statistics.pairs, before)
        assert sampler.residual < 1e-3
    assert torch.equal(torch.get_rng_state(), state)


def raising(z, time_steps):
    raise ValueError


ODD = {
    "never fires": lambda z, _: torch.zeros_like(z),
    "always fires": lambda z, _: torch.ones_like(z),
    "raises": raising,
    "other shape": lambda z, _: (z > 1).float().flatten(),
    "NaN": lambda z, _: z * torch.nan,
    "beyond 1": lambda z, _: (z > 1) * 2.0,
    "no tensor": lambda z, _: None,
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("per", ["layer", "channel"])
def test_without_a_response_it_is_fitted_to_the_samples(odd, per):
    alone, other = (sampled(IF(1.0), -2, -1, per=per) for _ in range(2))
    assert fitted(alone) == fitted(other, ODD[odd])
    assert same(alone, other)


@pytest.mark.parametrize("per", ["layer", "channel"])
def test_a_layer_that_is_not_constant_is_not_asked(per):
    asked = []
    alone, other = (sampled(IF(1.0), -1, 0.3, per=per) for _ in range(2))
    fitted(alone)
    fitted(other, lambda *call: asked.append(call))
    assert not asked
    assert same(alone, other)


def test_a_neuron_that_fires_at_every_other_step_at_most_is_taken_as_it_is():
    def respond(z, time_steps):
        return (time_steps * z).round().clamp(0, time_steps // 2) / time_steps

    sampler = sampled(IF(1.0), -0.2, -0.1, time_steps=6)
    fitted(sampler, respond)
    rates = sampler(torch.tensor([[-1.0, 0.5, 2.0]]))
    assert rates.tolist()[0] == pytest.approx([0.0, 0.5, 0.5], abs=0.17)


def test_a_channel_without_samples_has_the_layers_curve():
    neuron = LIF(1.0, 0.1)
    sampler = sampled(neuron, -0.3, 0.1, per="channel")
    sampler.statistics.pairs[1] = 0
    fitted(sampler, response(neuron))
    rates = sampler(torch.tensor([[2.0, 2.0, 2.0], [-1.0, -1.0, -1.0]]))
    assert rates.tolist() == [[1.0] * 3, [0.0] * 3]
