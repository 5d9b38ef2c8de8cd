import numpy as np
import pytest
import torch

import spikestrap as ss
from spikestrap.train.history import MOST_EPOCHS, mean_curve, record_curves

NEURON = {"threshold": 1.0, "voltage_decay": 0.0, "reset": "subtract", "v_init": 0.5}


def network(**options):
    neuron = dict(NEURON, **options)
    return ss.Network(
        ss.block.cuba.Dense(neuron, 4, 6, weight_scale=4.0),
        ss.block.cuba.Dense(neuron, 6, 5, weight_scale=4.0),
        ss.block.cuba.Affine(neuron, 5, 2),
        time_steps=4,
    )


def fit(net):
    x = torch.rand(32, 4)
    spikes = []
    hooks = [
        block.unit.register_forward_hook(lambda _, args, out: spikes.append(out.mean().item()))
        for block in net.blocks[:2]
    ]
    net(x, ss.Mode.SAMPLE)
    for hook in hooks:
        hook.remove()
    net(x, ss.Mode.FIT)
    return spikes


def test_takes_down_every_unit_that_was_fitted():
    net, curves = network(), []
    record_curves(curves, net, 0)
    assert curves == []
    rates = fit(net)
    record_curves(curves, net, 3)
    record_curves(curves, net, 4)
    assert [(curve.epoch, curve.unit, curve.fits) for curve in curves] == [
        (3, "blocks.0.unit", 1),
        (3, "blocks.1.unit", 1),
    ]
    for curve, block, rate in zip(curves, net.blocks, rates, strict=False):
        sampler = block.unit.sampler
        assert curve.origin == pytest.approx(float(sampler.origin))
        assert curve.width == pytest.approx(float(sampler.width))
        assert np.allclose(curve.values, sampler.values[0], atol=1e-4)
        assert curve.residual == pytest.approx(float(sampler.residual))
        assert curve.event_rate == pytest.approx(rate)


def test_is_thinned_where_it_is_densest_when_a_training_is_long():
    net, curves = network(), []
    sampler = net.blocks[0].unit.sampler
    fit(net)
    for epoch in range(5 * MOST_EPOCHS):
        sampler.fitted += 1  # as if fitted again
        record_curves(curves, net, epoch)
    epochs = [curve.epoch for curve in curves if curve.unit == "blocks.0.unit"]
    assert len(epochs) == MOST_EPOCHS
    assert (epochs[0], epochs[-1]) == (0, 5 * MOST_EPOCHS - 1)
    assert max(np.diff(epochs)) <= 2 * 5 + 1


def test_curves_of_channels_are_averaged():
    """Two channels, 0 to 1 over [0, 4] and over [4, 8]: at 4 their mean is 1/2."""
    sampler = ss.ann_sampler.AnnSampler(per="channel", channels=2, cells=4)
    sampler.origin = torch.tensor([0.0, 4.0])
    sampler.width = torch.tensor([1.0, 1.0])
    sampler.values = torch.tensor([[0.0, 0.25, 0.5, 0.75, 1.0]] * 2)
    origin, width, values = mean_curve(sampler)
    assert (origin, width) == (0.0, 2.0)
    assert values.tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
