import pytest
import torch
from torch import nn

import spikestrap as ss
from spikestrap.train.data import Arrays
from spikestrap.train.evaluate import EventRate, accuracy_over_time, evaluate

NEURON = {"threshold": 1.0, "current_decay": 1.0, "voltage_decay": 0.0, "reset": "subtract"}


class Brightest(nn.Module):
    """Says which pixel is the brightest."""

    def forward(self, x, mode):
        assert not self.training
        assert not torch.is_grad_enabled()
        self.mode = mode
        return x.flatten(1)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_accuracy_in_percent(batch_size):
    net = Brightest()
    x = torch.eye(4).view(4, 1, 2, 2)
    accuracy = evaluate(net, Arrays(x, torch.tensor([0, 1, 2, 0])), ss.Mode.ANN, batch_size)
    assert accuracy == 75
    assert net.mode is ss.Mode.ANN


def test_the_network_is_left_as_it_was():
    net = Brightest()
    arrays = Arrays(torch.rand(2, 1, 2, 2), torch.zeros(2).long())
    for training in (True, False):
        net.train(training)
        evaluate(net, arrays, ss.Mode.SNN)
        assert net.training is training


@pytest.mark.parametrize("batch_size", [7, 100])
def test_accuracy_over_time_is_that_of_each_number_of_steps(batch_size):
    net = ss.Network(
        ss.block.cuba.Dense(NEURON, 5, 8, weight_scale=4.0),
        ss.block.cuba.Affine(NEURON, 8, 3),
        time_steps=2,
    )
    images = Arrays(torch.rand(40, 5), torch.randint(3, (40,)))
    found = accuracy_over_time(net, images, 6, batch_size)
    assert (net.training, net.time_steps) == (True, 2)
    assert len(set(found)) > 1
    for steps, accuracy in enumerate(found, start=1):
        net.time_steps = steps
        assert accuracy == evaluate(net, images, ss.Mode.SNN)


def test_of_frames_of_events_the_first_steps_count():
    net = ss.Network(
        ss.block.Flatten(),
        ss.block.cuba.Dense(NEURON, 8, 8, weight_scale=4.0),
        ss.block.cuba.Affine(NEURON, 8, 3),
    )
    frames = Arrays(torch.randint(4, (40, 5, 2, 2, 2), dtype=torch.uint8), torch.randint(3, (40,)))
    found = accuracy_over_time(net, frames, 4, 7)
    assert len(set(found)) > 1
    for steps, accuracy in enumerate(found, start=1):
        first = Arrays(frames.x[:, :steps], frames.y)
        assert accuracy == evaluate(net, first, ss.Mode.SNN, batch_size=40)


def test_event_rate_weighs_units_by_their_neurons():
    cuba = ss.block.cuba
    net = ss.Network(
        cuba.Input({**NEURON, "threshold": 0.25}), cuba.Dense(NEURON, 3, 1), time_steps=4
    )
    with torch.no_grad():
        for parameter in net.blocks[1].parameters():
            parameter.zero_()
    with EventRate(net) as rate:
        net(torch.full((2, 3), 0.5), ss.Mode.SNN)  # 3 neurons always spike, 1 never
    assert rate.value == pytest.approx(0.75)


def test_event_rate_counts_only_within_its_block():
    net = ss.Network(ss.block.cuba.Input(NEURON), time_steps=4)
    with EventRate(net) as rate:
        pass
    net(torch.ones(1, 3), ss.Mode.SNN)
    assert rate.value == 0
