import matplotlib
import pytest
import torch

import spikestrap as ss
import spikestrap.lava_dl.bootstrap as bootstrap

matplotlib.use("Agg")


def test_samples_time_last_as_the_other_time_first():
    z = 2 * torch.rand(16, 40, 10) - 0.5
    a = ss.neuron.LIF(threshold=1.0, voltage_decay=0.1)(z)
    ours, theirs = ss.ann_sampler.AnnSampler(), bootstrap.ann_sampler.AnnSampler()
    ours.append(a, z)
    theirs.append(a.movedim(0, -1), z.movedim(0, -1))
    ours.fit()
    theirs.fit()
    rates = torch.linspace(-1, 2, 50)
    assert torch.equal(theirs(rates), ours(rates))
    theirs.clear()
    assert not theirs.sampler.pending


def test_a_block_shows_its_own():
    neuron = {"threshold": 1.0, "current_decay": 1, "voltage_decay": 0.1}
    block = bootstrap.block.cuba.Dense(neuron, 6, 5)
    block.block.synapse.layer.weight.data.uniform_(-1, 2)
    block((torch.rand(50, 6, 8) < 0.5).float(), mode=bootstrap.Mode.SAMPLE)
    block.fit()
    assert block.f.sampler is block.block.unit.sampler
    assert block.f(torch.tensor([1.5])).item() > 0
    axes = block.f.plot(figsize=(3, 2))
    assert axes.get_xlabel() == "mean input"
    matplotlib.pyplot.close("all")


def test_settings():
    assert bootstrap.ann_sampler.AnnSampler(slope="fit").sampler.slope == "fit"
    with pytest.raises(ss.SpikestrapError, match="num_centers has no counterpart"):
        bootstrap.ann_sampler.AnnSampler(5)
