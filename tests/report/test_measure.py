import dataclasses

import numpy as np
import pytest
import torch

import spikestrap as ss
from spikestrap.report import measure as measuring
from spikestrap.report.measure import measure
from spikestrap.train import evaluate, load_run
from spikestrap.train.data import Arrays, Splits, digits
from spikestrap.train.evaluate import logits_over_time

NEURON = {"threshold": 1.0, "voltage_decay": 0.0, "reset": "subtract", "v_init": 0.5}


@pytest.fixture
def tiny():
    """Two pixels, a neuron each, weight 1; class 0 is the first neuron's rate."""
    net = ss.Network(
        ss.block.Flatten(),
        ss.block.cuba.Input(NEURON),
        ss.block.cuba.Affine(NEURON, 2, 2, bias=False),
        time_steps=4,
    )
    with torch.no_grad():
        net.blocks[2].synapse.weight.copy_(torch.eye(2))
    return net


def splits_of(pixels, labels):
    test = Arrays(torch.tensor(pixels).view(-1, 1, 1, 2), torch.tensor(labels))
    return Splits("hand-made", 2, test, test, test)


@pytest.fixture
def digits_run(trained):
    net = load_run(trained).net
    return net.eval(), digits(0)


def test_values_worked_by_hand(tiny):
    """0.5 fires in every second step, 1.5 in all, 0 in none."""
    found = measure(tiny, splits_of([[0.5, 1.5], [1.5, 0.0], [0.0, 0.5]], [0, 0, 1]))
    assert (found.images, found.test_images) == (3, 3)
    assert found.confusion.tolist() == [[1, 1], [0, 1]]
    (layer,) = found.layers.values()
    assert layer.event_rate == pytest.approx((0.5 + 1 + 1 + 0 + 0 + 0.5) / 6)
    assert (layer.dead, layer.saturated) == (0, 0)
    (density,) = found.densities.values()
    assert density.neurons == 2
    assert density.counts.shape == (48, 5)
    assert density.counts.sum(0).tolist() == [2, 0, 2, 0, 2]
    assert density.outside == 0
    assert (density.low, density.high) == pytest.approx((0, 1.5), abs=1e-3)
    worst = found.examples[0]
    assert (worst.index, worst.true, worst.rival) == (0, 0, 1)
    assert worst.margin == pytest.approx(1 - 0.5)
    assert worst.image.tolist() == [[0.5, 1.5]]
    # 0.5 first fires at the second step.
    assert worst.evidence[:, 0].tolist() == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    assert worst.evidence[:, 1].tolist() == [1, 1, 1, 1]
    (raster,) = worst.rasters
    assert raster.total == 2
    assert raster.spikes.tolist() == [[False, True, False, True], [True] * 4]
    assert found.sweep.ann is None
    assert len(found.sweep.accuracy) == 8
    assert found.cost.spikes == pytest.approx(4 * 3 / 3)


def test_accuracy_over_t_is_that_of_networks_of_each_t(digits_run):
    net, splits = digits_run
    x = splits.test.x[:50]
    logits = logits_over_time(net, x, 8)
    assert net.time_steps == 4
    for steps in (1, 2, 4, 7, 8):
        net.time_steps = steps
        with torch.no_grad():
            torch.testing.assert_close(logits[steps - 1], net(x, ss.Mode.SNN))


def test_agrees_with_the_evaluation_of_the_run(digits_run):
    net, splits = digits_run
    found = measure(net, splits)
    snn = evaluate(net, splits.test, ss.Mode.SNN)
    right = np.diag(found.confusion).sum()
    assert found.confusion.sum() == found.images == 450
    assert 100 * right / 450 == pytest.approx(snn)
    assert found.sweep.accuracy[3] == pytest.approx(snn)
    assert found.sweep.ann == pytest.approx(evaluate(net, splits.test, ss.Mode.ANN))
    margins = [example.margin for example in found.examples]
    assert margins == sorted(margins, reverse=True)
    assert margins[0] > 0
    for name, density in found.densities.items():
        assert density.counts.sum() == pytest.approx(
            (1 - density.outside) * 450 * density.neurons
        ), name
        assert 0 <= density.outside < 1


def test_rasters_are_the_spikes_of_the_network(digits_run):
    net, splits = digits_run
    example = measure(net, splits).examples[0]
    seen = []
    hook = net.blocks[2].unit.register_forward_hook(lambda _, args, spikes: seen.append(spikes))
    net(splits.test.x[example.index][None], ss.Mode.SNN)
    hook.remove()
    raster = example.rasters[1]
    assert raster.total == 256
    assert raster.spikes.shape == (64, 4)
    whole = seen[0][:, 0].bool().T.numpy()
    assert (raster.spikes[0] == whole[0]).all()
    assert (raster.spikes[-1] == whole[-1]).all()


def test_leaves_the_network_as_it_was(digits_run):
    net, splits = digits_run
    net.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    measure(net, splits)
    assert net.training
    assert net.time_steps == 4
    assert all(value.equal(before[name]) for name, value in net.state_dict().items())


def test_the_work_is_bounded_and_the_same_every_time(digits_run, monkeypatch):
    net, splits = digits_run
    monkeypatch.setattr(measuring, "IMAGE_STEPS", 400)
    monkeypatch.setattr(measuring, "SWEEP_IMAGE_STEPS", 1)
    one, two = measure(net, splits), measure(net, splits)
    assert (one.images, one.sweep.images, one.diagnosed) == (100, 50, 100)
    assert one.confusion.tolist() == two.confusion.tolist()
    assert one.sweep == two.sweep
    assert [e.index for e in one.examples] == [e.index for e in two.examples]
    place = one.examples[0].index
    assert (one.examples[0].image == splits.test.x[place, 0].numpy()).all()
    assert dataclasses.asdict(one.cost) == dataclasses.asdict(two.cost)
