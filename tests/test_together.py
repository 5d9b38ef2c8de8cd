"""What one combines in a training loop, with the modes: each alone is tested where it is made."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import spikestrap as ss

NEURON = {"threshold": 0.5, "voltage_decay": 0.1, "norm": "batch"}
SCHEDULER = ss.Scheduler(num_sample_iter=2, sample_period=2, crossover_epochs=[1], snn_from=2)
ACCUMULATE, BATCHES, EPOCHS = 2, 6, 3
cuba = ss.block.cuba


def network():
    torch.manual_seed(0)
    return ss.Network(
        cuba.Conv(NEURON, 2, 8, 3, padding=1),
        ss.block.AvgPool(2),
        cuba.Conv(NEURON, 8, 8, 3, padding=1, weight_norm=True),
        ss.block.Flatten(),
        cuba.Affine(None, 128, 3),
        time_steps=4,
    )


def images():
    return torch.rand(BATCHES, 16, 2, 8, 8, generator=torch.Generator().manual_seed(1))


def train(net, layout, compiled):
    """Accumulates, clips and averages; the average, and the norms of the clipped gradients."""
    net.to(memory_format=layout)
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    fast = torch.compile(net, fullgraph=True, backend="aot_eager") if compiled else net
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    norms = []
    for epoch in range(EPOCHS):
        for i, x in enumerate(images()):
            mode = SCHEDULER.mode(epoch, i)
            plain = mode.base_mode in (ss.Mode.SAMPLE, ss.Mode.FIT)
            logits = (net if plain else fast)(x.to(memory_format=layout), mode)
            (F.cross_entropy(logits, torch.arange(16) % 3) / ACCUMULATE).backward()
            if (i + 1) % ACCUMULATE == 0:
                nn.utils.clip_grad_norm_(net.parameters(), 0.05)
                norms.append(float(nn.utils.get_total_norm([p.grad for p in net.parameters()])))
                optimizer.step()
                optimizer.zero_grad()
                average.update_parameters(net)
    return average, norms


def test_accumulation_average_clipping_compilation_and_channels_last(fresh_compiler):
    plain, fancy = network(), network()
    expected, _ = train(plain, torch.contiguous_format, compiled=False)
    average, norms = train(fancy, torch.channels_last, compiled=True)
    assert len(norms) == EPOCHS * BATCHES // ACCUMULATE
    assert all(0 < norm < 0.0501 for norm in norms)
    assert fancy.blocks[0].synapse.weight.is_contiguous(memory_format=torch.channels_last)
    for one, other in ((plain, fancy), (expected.module, average.module)):
        for name, value in one.state_dict().items():
            if ".sampler." in name:
                continue  # a sample on the border of a bin falls into either
            # Convolutions add in another order, which may tip a spike.
            torch.testing.assert_close(
                other.state_dict()[name], value, atol=5e-3, rtol=1e-2, msg=name
            )
    moved = (average.module.blocks[0].synapse.weight - fancy.blocks[0].synapse.weight).abs()
    assert moved.max() > 0, "the average lags behind"
    for own, averaged in zip(*map(ss.unit.units_of, (fancy, average.module)), strict=True):
        assert torch.equal(own[1].sampler.values, averaged[1].sampler.values)
    for mode in (ss.Mode.SNN, ss.Mode.ANN):
        assert average.module.eval()(images()[0], mode).isfinite().all()


@pytest.mark.parametrize("mode", ss.Mode)
def test_channels_last_is_the_same_and_stays(mode):
    nets, layouts = (network(), network()), (torch.contiguous_format, torch.channels_last)
    found = []
    for net, layout in zip(nets, layouts, strict=True):
        net.to(memory_format=layout)
        for first in (ss.Mode.SAMPLE, ss.Mode.FIT):
            net(images()[0].to(memory_format=layout), first)
        logits = net(images()[1].to(memory_format=layout), mode)
        logits.square().sum().backward()
        found.append([logits, *(p.grad for p in net.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)
    assert nets[1].blocks[0].synapse.weight.is_contiguous(memory_format=torch.channels_last)
