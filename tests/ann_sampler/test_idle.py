"""Channels that were silent, or saturated, in all samples have a gradient that others lack."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.processes import run_in

from spikestrap.ann_sampler import AnnSampler
from spikestrap.ann_sampler.idle import CHANNELS, add_activity, wake
from spikestrap.neuron import IF

pytestmark = pytest.mark.filterwarnings("ignore::spikestrap.SpikestrapWarning")

# Of six channels: silent, saturated, and four whose rate changes.
SHIFTS = torch.tensor([-9.0, 9.0, 0.0, 0.1, 0.2, 0.3])
FAR = torch.tensor([-50.0, 50.0])  # beyond the ramp on either side
NEURON = IF(1.0, reset="subtract", v_init=0.5)
IDLE = [0.05, 0.05, 0.0, 0.0, 0.0, 0.0]  # a twentieth of the ramp's slope, which is 1


def draw(shifts=SHIFTS, n=200, inner=(), seed=0):
    z = (
        2 * torch.rand(1, n, len(shifts), *inner, generator=torch.Generator().manual_seed(seed))
        - 0.5
    )
    return z + shifts.view(-1, *[1] * len(inner))


def sampled(z, time_steps=4, **settings):
    sampler = AnnSampler(**settings)
    sampler.append(NEURON(z, time_steps=time_steps), z)
    return sampler


def fitted(sampler, respond=None):
    sampler.fit(respond)
    return sampler


def response(z, time_steps):
    return NEURON(z[None], time_steps=time_steps).mean(0)


def idle(sampler):
    """The channels."""
    return sampler.idle_slopes.nonzero().flatten().tolist()


def slopes_far_away(sampler, shape=(2, 6)):
    z = FAR.view(2, *[1] * (len(shape) - 1)).expand(shape).clone().requires_grad_()
    sampler(z).sum().backward()
    return z.grad


@given(
    rates=st.lists(st.lists(st.sampled_from([0.0, 0.25, 1.0]), min_size=6, max_size=6), min_size=1),
    inner=st.sampled_from([(), (1,), (2,), (2, 1)]),
)
def test_activity_counts_by_channel(rates, inner):
    rate = np.array(rates).reshape(len(rates), -1, *inner)
    above = [(rate[:, c] > 0).sum() for c in range(rate.shape[1])]
    below = [(rate[:, c] < 1).sum() for c in range(rate.shape[1])]
    rest = [0] * (8 - len(above))
    changes = torch.ones(2, 8)
    add_activity(changes, torch.from_numpy(rate))
    assert (changes - 1).tolist() == [above + rest, below + rest]
    few = torch.zeros(2, 1)
    add_activity(few, torch.from_numpy(rate))
    assert few.tolist() == [above[:1], below[:1]]


@pytest.mark.parametrize("time_steps", [1, 4, 16])
@pytest.mark.parametrize("inner", [(), (3, 2)])
def test_only_idle_channels_have_a_slope_everywhere(time_steps, inner):
    sampler = fitted(sampled(draw(inner=inner), time_steps))
    slopes = slopes_far_away(sampler, (2, 6, *inner))
    expected = torch.tensor(IDLE).view(-1, *[1] * len(inner)).expand_as(slopes)
    torch.testing.assert_close(slopes, expected, rtol=0.2, atol=0)


def test_without_idle_channels_nothing_is_added():
    sampler = fitted(sampled(draw(SHIFTS[2:])))
    assert not sampler.idle_slopes.any()
    assert not slopes_far_away(sampler, (2, 4)).any()


def test_rates_are_those_of_the_curve():
    sampler = fitted(sampled(draw()))
    z = draw(seed=1)[0]
    assert torch.equal(sampler(z.clone().requires_grad_()), sampler(z))


def test_rates_may_be_changed_in_place():
    sampler, z = fitted(sampled(draw())), draw(seed=1)[0].requires_grad_()
    (expected,) = torch.autograd.grad((2 * sampler(z)).sum(), z)
    rates = sampler(z)
    rates *= 2
    torch.testing.assert_close(torch.autograd.grad(rates.sum(), z)[0], expected)


def test_gradients_of_samples_add_up():
    sampler, z = fitted(sampled(draw())), draw(seed=1)[0].requires_grad_()
    weight = torch.randn(6, generator=torch.Generator().manual_seed(2))
    (whole,) = torch.autograd.grad((sampler(z) @ weight).sum(), z)
    for i in (0, 7, 199):
        (one,) = torch.autograd.grad((sampler(z[i : i + 1]) @ weight).sum(), z)
        torch.testing.assert_close(whole[i], one[i])


@pytest.mark.parametrize("slope", ["fit", "rescaled"])
def test_other_slopes_have_none(slope):
    assert not fitted(sampled(draw(), slope=slope)).idle_slopes.any()


def test_of_a_curve_a_channel_the_flat_ones_have_their_own_slope():
    sampler = fitted(sampled(draw(), per="channel", channels=6))
    slopes = slopes_far_away(sampler)
    assert (slopes[:, :2] > 0.02).all()
    assert not slopes[:, 2:].any()


@pytest.mark.parametrize("per", ["layer", "channel"])
def test_a_layer_that_is_idle_throughout_is_so_by_the_curve_beyond(per):
    sampler = sampled(draw(SHIFTS[:1].expand(6)), per=per, channels=6)
    fitted(sampler, response)
    assert idle(sampler) == [0, 1, 2, 3, 4, 5]
    assert (slopes_far_away(sampler) > 0).all()


def test_a_layer_that_is_idle_throughout_leaves_a_flat_curve_by_its_own_slope():
    sampler = fitted(sampled(draw(SHIFTS[:1].expand(6))))
    assert idle(sampler) == []
    assert (slopes_far_away(sampler) > 0).all()


def test_without_memory_only_the_last_samples_count():
    sampler = fitted(sampled(draw(SHIFTS.roll(2))))
    assert idle(sampler) == [2, 3]
    sampler.append(NEURON(draw(), time_steps=4), draw())
    assert idle(fitted(sampler)) == [0, 1]
    sampler.clear()
    assert not sampler.statistics.changes.any()


def test_with_memory_what_was_seen_fades():
    sampler = fitted(sampled(draw(SHIFTS.roll(2), n=100), memory=0.5))
    found = []
    for _ in range(8):
        sampler.append(NEURON(draw(), time_steps=4), draw())
        found.append(idle(fitted(sampler)))
    # Some of a hundred pairs, halved seven times, are less than one; halved four times, more.
    assert found[:4] == [[]] * 4
    assert found[-1] == [0, 1]


def test_sampled_in_inference_mode_and_on_outside():
    sampler = AnnSampler(memory=0.5)
    for z, mode in ((draw(SHIFTS.roll(2)), True), (draw(), False)):
        with torch.inference_mode(mode):
            sampler.append(NEURON(z, time_steps=4), z)
        fitted(sampler)
    assert idle(sampler) == []


def test_merged_and_in_parts_are_as_in_one():
    z = draw()
    whole = fitted(sampled(z))
    parts, other = sampled(z[:, :90]), sampled(z[:, 90:])
    parts.merge(other)
    assert torch.equal(fitted(parts).statistics.changes, whole.statistics.changes)
    assert torch.equal(parts.idle_slopes, whole.idle_slopes)


def test_sizes_that_vary_count_together():
    """As tokens do; what no sample had is not idle."""
    sampler = sampled(draw())
    small = draw(SHIFTS[2:5])
    sampler.append(NEURON(small, time_steps=4), small)
    assert idle(fitted(sampler)) == []  # the first three were awake once
    assert not slopes_far_away(sampler, (2, 9)).any()
    sampler.append(NEURON(draw(SHIFTS[:3]), time_steps=4), draw(SHIFTS[:3]))
    assert idle(fitted(sampler)) == [0, 1]
    assert slopes_far_away(sampler, (2, 9)).any(0).tolist() == [True] * 2 + [False] * 7


def test_channels_beyond_those_told_apart_never_idle():
    z = torch.full((1, 20, CHANNELS + 3), -9.0)
    z[..., :10] = torch.linspace(-0.5, 1.5, 200).view(20, 10)
    sampler = fitted(sampled(z))
    assert idle(sampler) == list(range(10, CHANNELS))
    slopes = slopes_far_away(sampler, (2, CHANNELS + 3))
    assert slopes[:, 10:CHANNELS].all()
    assert not slopes[:, CHANNELS:].any()


def test_rates_without_channels_are_one():
    z = torch.full((1, 50), -9.0)
    sampler = sampled(z)
    fitted(sampler, response)
    assert slopes_far_away(sampler, (2,)).all()


def test_kept_with_the_module():
    sampler = fitted(sampled(draw()))
    loaded = AnnSampler()
    loaded.load_state_dict(sampler.state_dict())
    written = AnnSampler()
    for own, other in zip(written.buffers(), sampler.buffers(), strict=True):
        own.copy_(other)  # as an averaged copy gets them
    copied = copy.deepcopy(sampler)
    for twin in (loaded, copied, copy.deepcopy(sampler).bfloat16(), written):
        assert torch.equal(twin.idle_slopes, sampler.idle_slopes)
        assert torch.equal(slopes_far_away(twin), slopes_far_away(sampler))
    for twin in (loaded, copied):
        assert torch.equal(twin.statistics.changes, sampler.statistics.changes)


def test_a_state_of_another_form_is_refused():
    state = fitted(sampled(draw())).state_dict()
    state["changes"] = torch.zeros(2, 6)
    with pytest.raises(RuntimeError, match=r"changes: expected \(2, 4096\), got \(2, 6\)"):
        AnnSampler().load_state_dict(state)


def test_compiled_it_is_the_same(fresh_compiler):
    sampler, z = AnnSampler(), draw(seed=1)[0]
    compiled = torch.compile(sampler, backend="aot_eager", fullgraph=True)
    # Other channels idle, and none: no new graph.
    with torch._dynamo.config.patch(error_on_recompile=True):
        for shifts in (SHIFTS, SHIFTS.roll(2), SHIFTS[2].expand(6)):
            inputs = draw(shifts)
            sampler.append(NEURON(inputs, time_steps=4), inputs)
            fitted(sampler)
            grads = []
            for function in (sampler, compiled):
                leaf = z.clone().requires_grad_()
                function(leaf).square().sum().backward()
                grads.append(leaf.grad)
            torch.testing.assert_close(*grads)


def test_forward_mode_and_per_sample_gradients():
    sampler, z = fitted(sampled(draw())), draw(seed=1)[0][:3]
    reverse = torch.func.jacrev(sampler)(z)
    torch.testing.assert_close(torch.func.jacfwd(sampler)(z), reverse)
    each = torch.func.vmap(torch.func.grad(lambda x: sampler(x[None]).sum()))(z)
    torch.testing.assert_close(each, reverse.sum((0, 1)))


def test_networks_side_by_side_each_have_their_own():
    samplers = [fitted(sampled(draw(shifts))) for shifts in (SHIFTS, SHIFTS.roll(2), SHIFTS[2:])]
    parameters, buffers = torch.func.stack_module_state(samplers)

    def gradient(buffers, z):
        def run(z):
            return torch.func.functional_call(samplers[2], (parameters, buffers), z).sum()

        return torch.func.grad(run)(z)

    z = FAR[:, None].expand(2, 4)
    each = torch.func.vmap(gradient, in_dims=(0, None))(buffers, z)
    alone = torch.stack([slopes_far_away(sampler, (2, 4)) for sampler in samplers])
    torch.testing.assert_close(each, alone)


def test_waking_is_linear_in_the_gradient():
    z = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    slopes = torch.tensor([0.0, 0.5, 1.0, 2.0], dtype=torch.float64)
    rates = torch.rand(5, 4, dtype=torch.float64, requires_grad=True)
    woken = wake(rates, z, slopes)
    assert torch.equal(woken, rates)
    grad = torch.randn_like(woken)
    found = torch.autograd.grad(woken, (rates, z), grad)
    torch.testing.assert_close(found, (grad, grad * slopes))


def test_processes_see_what_all_of_them_saw():
    run_in(
        3,
        """
from spikestrap.ann_sampler import AnnSampler
neuron = ss.neuron.IF(1.0, reset="subtract", v_init=0.5)
# Channel 0 wakes at rank 0 alone, channel 1 nowhere; rank 2 never samples.
sampler = AnnSampler()
if rank < 2:
    shifts = torch.tensor([0.0 if rank == 0 else -9.0, -9.0, 0.0])
    z = torch.linspace(-0.5, 1.5, 100)[:, None] + shifts
    sampler.append(neuron(z[None], time_steps=4), z[None])
sampler.fit()
assert sampler.idle_slopes.nonzero().flatten().tolist() == [1]
assert same(sampler.idle_slopes) and same(sampler.statistics.changes)
""",
    )


def test_a_silent_channel_learns_to_spike():
    torch.manual_seed(0)
    # One of eight: the ramp is where the others are, and stay.
    weight = torch.rand(8, 8) / 4
    weight[0] = -0.5
    weight.requires_grad_()
    optimizer = torch.optim.SGD([weight], lr=10.0)
    x, sampler = torch.rand(64, 8), AnnSampler()
    for _ in range(40):
        z = (x @ weight.T)[None]
        sampler.append(NEURON(z.detach(), time_steps=4), z.detach())
        fitted(sampler)
        optimizer.zero_grad()
        (1 - sampler(z[0])[:, 0]).square().mean().backward()
        optimizer.step()
    assert NEURON((x @ weight.T)[None], time_steps=4)[..., 0].mean() > 0.9
