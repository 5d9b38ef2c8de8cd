import gc
import pickle

import pytest
import torch
from torch import nn

import spikestrap as ss
from spikestrap import SpikestrapError
from spikestrap.ann_sampler import AnnSampler
from spikestrap.wrap.samples import Samples

T = 6


def draw(dtype=torch.float32):
    return (torch.randn(T, 5, 4).to(dtype), (torch.rand(T, 5, 4) < 0.5).to(dtype))


def taken(z, spikes, a_call=1):
    samples, sampler, steps = Samples(), AnnSampler(), len(z)
    for k in range(0, len(z), a_call):
        samples.add(z[k : k + a_call], spikes[k : k + a_call])
    sampler.append_means(*samples.means(steps), steps)
    return sampler


@pytest.mark.parametrize("a_call", [1, 2, T])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_is_what_the_sampler_makes_of_all_steps_at_once(a_call, dtype):
    z, spikes = draw(dtype)
    expected = AnnSampler()
    expected.append(spikes, z)
    sampler = taken(z, spikes, a_call)
    # Means of another rounding may be in the bin beside.
    torch.testing.assert_close(sampler.statistics.pairs.sum(-1), expected.statistics.pairs.sum(-1))
    assert (sampler.count, sampler.time_steps) == (20, T)


def test_half_precision_counts_beyond_256():
    spikes = torch.ones(600, 2, 1, dtype=torch.bfloat16)
    sampler = taken(spikes, spikes)
    assert sampler.statistics.pairs.sum(-1).tolist() == [[2, 2, 2, 2]]


def test_takes_the_memory_of_one_step():
    samples, sizes = Samples(), []
    for _ in range(40):
        samples.add(torch.randn(1, 5, 4), torch.ones(1, 5, 4))
        sizes.append(len(pickle.dumps(samples)))
    assert len(set(sizes)) == 1


def test_a_pass_holds_no_more_with_every_step():
    alive, shape = [], (11, 13)

    class Counts(nn.Module):
        def forward(self, z):
            tensors = (x for x in gc.get_objects() if type(x) is torch.Tensor)
            alive.append(sum(x.shape[-2:] == shape for x in tensors))
            return (z > 0).to(z)

    ss.wrap.register(Counts)
    net = ss.bootstrap(nn.Sequential(nn.Linear(3, shape[1]), Counts()), time_steps=8)
    x = torch.randn(shape[0], 3)
    with torch.no_grad():
        net(x, ss.Mode.SAMPLE)  # finds out how it is called
        alive.clear()
        net(x, ss.Mode.SAMPLE)
    assert len(alive) == 8
    assert max(alive) == alive[2]


def test_later_changes_in_place_do_not_reach_it():
    z, spikes = draw()
    samples, sampler = Samples(), AnnSampler()
    for step in zip(z.clone().split(1), spikes.clone().split(1), strict=True):
        samples.add(*step)
        for x in step:
            x.fill_(3)
    sampler.append_means(*samples.means(T), T)
    assert torch.equal(sampler.statistics.pairs, taken(z, spikes).statistics.pairs)


@pytest.mark.parametrize("bad", [0.5, 2.0, -1.0, float("nan")])
@pytest.mark.parametrize("a_call", [1, T])
def test_refuses_what_is_not_0_or_1(bad, a_call):
    z, spikes = draw()
    spikes[2, 1, 1] = bad
    message = f"got values from {spikes.min():g} to {spikes.max():g}"
    with pytest.raises(SpikestrapError, match=f"expected spikes of 0 and 1, {message}"):
        taken(z, spikes, a_call)
