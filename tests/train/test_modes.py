import copy

import pytest
import snntorch
import torch
from torch import nn

import spikestrap as ss
from spikestrap.train.modes import GivenModes

NEURON = {"threshold": 0.05, "voltage_decay": 0.0, "v_init": 0.04}
cuba = ss.block.cuba


class Noting(nn.Module):
    """A forward of one's own over two blocks; notes with how many axes each result comes."""

    def __init__(self):
        super().__init__()
        self.first, self.second = cuba.Dense(NEURON, 6, 5), cuba.Dense(NEURON, 5, 4)

    def forward(self, x):
        x = self.first(ss.hold(x, 3))
        self.axes = [x.ndim]
        x = self.second(x)
        self.axes.append(x.ndim)
        return x


def test_each_block_gets_its_own():
    net, x = Noting(), torch.rand(7, 6)
    modes = GivenModes(net)
    assert modes.units == 2
    for mode, axes in (
        (ss.LayerMode(ss.Mode.SAMPLE), [3, 3]),
        (ss.LayerMode(ss.Mode.FIT), [2, 2]),
        (ss.LayerMode(ss.Mode.ANN), [2, 2]),
        (ss.LayerMode(ss.Mode.ANN, crossover=1), [3, 2]),
        (ss.LayerMode(ss.Mode.SNN), [3, 3]),
    ):
        modes.current = mode
        net(x)
        assert net.axes == axes
    modes.remove()
    modes.current = ss.LayerMode(ss.Mode.ANN)
    net(x)
    assert net.axes == [3, 3]


def test_a_residual_block_has_one_mode_for_both_units():
    conv = ss.block.cuba.Conv
    net = nn.ModuleList([conv(NEURON, 1, 2, 3, padding=1), ss.block.Residual(conv, NEURON, 2, 2)])
    modes, x = GivenModes(net), torch.rand(3, 7, 1, 4, 4)
    assert modes.units == 2

    def run():
        y = net[0](x)
        return [y.ndim, net[1](y).ndim]

    for mode, axes in (
        (ss.LayerMode(ss.Mode.SAMPLE), [5, 5]),
        (ss.LayerMode(ss.Mode.FIT), [4, 4]),
        (ss.LayerMode(ss.Mode.ANN), [4, 4]),
        (ss.LayerMode(ss.Mode.ANN, crossover=1), [5, 4]),
    ):
        modes.current = mode
        assert run() == axes
    assert all(unit.sampler.fitted == 1 for _, unit in ss.unit.units_of(net))


def test_where_every_unit_has_crossed_over_the_mode_is_that_of_an_snn():
    conv = ss.block.cuba.Conv
    residual = ss.block.Residual(conv, NEURON, 2, 2)
    net = ss.Network(conv(NEURON, 1, 2, 3, padding=1), residual, time_steps=3)
    head = cuba.Dense(NEURON, 4, 2)
    for modules, longest in (
        ([net], 2),  # a residual block uses one
        ([net, copy.deepcopy(net)], 2),  # each gets them from the first on
        ([net, head], 3),
        ([cuba.Dense(NEURON, 6, 4), head], 2),
        ([ss.bootstrap(nn.Sequential(nn.Linear(6, 4), snntorch.Leaky(0.5)), time_steps=3)], 1),
    ):
        modes = GivenModes(nn.ModuleList(modules))
        modes.remove()
        for crossover in range(5):
            mode = ss.LayerMode(ss.Mode.SAMPLE, crossover)
            base_mode = ss.Mode.SAMPLE if crossover < longest else ss.Mode.SNN
            assert modes.of(mode).base_mode is base_mode
    nothing = GivenModes(nn.Linear(6, 4))  # of whose modes it knows nothing
    assert nothing.of(mode) is mode


def test_a_named_mode_goes_before():
    block = cuba.Dense(NEURON, 6, 5)
    modes = GivenModes(nn.ModuleList([block]))
    modes.current = ss.LayerMode(ss.Mode.ANN)
    x = torch.rand(3, 7, 6)
    assert block(x, ss.Mode.SNN).ndim == 3
    assert block(x, mode=ss.Mode.SNN).ndim == 3
    with pytest.raises(ss.NotFittedError):
        block(x)


def test_a_network_gets_the_modes_of_all_its_units():
    net = ss.Network(cuba.Dense(NEURON, 6, 5), cuba.Dense(NEURON, 5, 4), time_steps=3)
    inside = nn.ModuleDict({"net": net, "head": cuba.Dense(NEURON, 4, 2)})
    modes, x = GivenModes(inside), torch.rand(7, 6)
    assert modes.units == 3
    modes.current = ss.LayerMode(ss.Mode.SAMPLE)
    assert net(x).shape == (7, 4)
    assert all(unit.sampler.pending for _, unit in ss.unit.units_of(net))
    modes.current = ss.LayerMode(ss.Mode.ANN, crossover=2)
    with pytest.raises(ss.NotFittedError):  # the third unit is past the crossover
        inside["head"](torch.rand(7, 4))
