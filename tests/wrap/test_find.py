"""What cannot be wrapped is refused at construction, with place and reason."""

import importlib.util
import sys

import norse.torch as norse
import pytest
import sinabs.layers as sl
import snntorch as snn
import torch
from sinabs.activation import MaxSpike, SingleSpike
from spikingjelly.activation_based import encoding, layer, neuron
from tests.processes import run
from torch import nn

import spikestrap as ss
from spikestrap import SpikestrapError


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (snn.Leaky(0.9, graded_spikes_factor=2.0), "Leaky.*graded"),
        (snn.Leaky(0.9, learn_graded_spikes_factor=True), "Leaky.*graded"),
        (sl.IAF(), "sinabs.IAF.*more than once a step.*SingleSpike"),
        (sl.LIF(tau_mem=9.0, spike_fn=MaxSpike(2)), "sinabs.LIF.*more than once"),
        (sl.ExpLeak(tau_mem=9.0), "sinabs.ExpLeak.*does not spike"),
        (snn.RLeaky(0.9, all_to_all=False, V=1.0), "snntorch.RLeaky.*register"),
        (
            sl.LIFRecurrent(tau_mem=9.0, rec_connect=nn.Identity()),
            "LIFRecurrent.*no neuron that can",
        ),
        (sl.ALIF(tau_mem=9.0, tau_adapt=9.0), "sinabs.ALIF.*state over time"),
        (neuron.EIFNode(), "spikingjelly.EIFNode.*state over time"),
        (neuron.NonSpikingLIFNode(), "NonSpikingLIFNode.*state over time"),
        (layer.SynapseFilter(), "SynapseFilter.*state over time"),
        (encoding.PoissonEncoder(), "PoissonEncoder.*encode before the model"),
        (norse.LICell(), "norse.LICell.*state over time"),
        (norse.LILinearCell(3, 3), "norse.LILinearCell.*state over time"),
        (norse.LIFRecurrent(3, 3), "norse.LIFRecurrent.*state over time"),
        (norse.RecurrentSequential(norse.LIFCell()), "RecurrentSequential.*state over time"),
        (norse.PoissonEncoder(4), "norse.PoissonEncoder.*encode before"),
        (nn.GRU(3, 3), "torch.GRU.*state over time"),
        (nn.BatchNorm1d(3, track_running_stats=False), "BatchNorm1d.*running statistics"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_refuses(module, message):
    model = nn.Sequential(nn.Linear(3, 3), nn.Sequential(neuron.IFNode(), module))
    with pytest.raises(SpikestrapError, match=rf"'1\.1' \(.*{message}"):
        ss.bootstrap(model, time_steps=4)


def test_refuses_inhibition():
    with pytest.warns(UserWarning, match="Inhibition"):
        lif = snn.Leaky(0.9, inhibition=True)
    with pytest.raises(SpikestrapError, match="depends on the others"):
        ss.bootstrap(nn.Sequential(lif), time_steps=4)


def test_nothing_to_wrap():
    with pytest.raises(SpikestrapError, match=r"found no neuron in Sequential; known are .*Leaky"):
        ss.bootstrap(nn.Sequential(nn.Linear(3, 3)), time_steps=4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"time_steps": 0}, "whole number >= 1, got 0"),
        ({"time_steps": 2.5}, "whole number >= 1, got 2.5"),
        ({"layout": "NT"}, "layout must be None or one of step, .* got 'NT'"),
        ({"sampler": {"cells": 1}}, "cells must be"),
        ({"sampler": {"cell": 8}}, "bootstrap: sampler: .*cell"),
        ({"sampler": "fast"}, "bootstrap: sampler: expected a dict .* got .fast."),
    ],
)
def test_wrong_settings(arguments, message):
    with pytest.raises(SpikestrapError, match=message):
        ss.bootstrap(nn.Sequential(neuron.IFNode()), **arguments)


def test_no_module():
    with pytest.raises(SpikestrapError, match=r"expected an nn\.Module, got 3"):
        ss.bootstrap(3)


@pytest.mark.parametrize(
    ("x", "time_steps", "message"),
    [
        (torch.ones(4, 3, dtype=torch.int64), 2, r"\(N, features...\), not empty; got torch.int64"),
        (torch.ones(3), 2, r"got torch.float32, shape \(3,\)"),
        (torch.ones(0, 3), 2, r"shape \(0, 3\)"),
        (torch.ones(4, 3), None, r"\(T, N, features...\), not empty; .* shape \(4, 3\)"),
    ],
)
def test_wrong_inputs(x, time_steps, message):
    with pytest.raises(SpikestrapError, match=message):
        ss.bootstrap(nn.Sequential(neuron.IFNode()), time_steps)(x)


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("snn", r"one of Mode\.SNN, .* got 'snn'"),
        ([ss.Mode.SNN] * 3, "expected 1 modes, one a unit, got 3"),
        ([None], "got None"),
    ],
)
def test_wrong_modes(mode, message):
    with pytest.raises(SpikestrapError, match=message):
        ss.bootstrap(nn.Sequential(neuron.IFNode()), 2)(torch.ones(4, 3), mode)


def test_wrong_outputs():
    class Scalar(nn.Sequential):
        def forward(self, x):
            return super().forward(x).mean()

    with pytest.raises(
        SpikestrapError, match=r"expected the model to return logits \(4, classes\)"
    ):
        ss.bootstrap(Scalar(neuron.IFNode()), 2)(torch.ones(4, 3))


def test_a_failing_forward_says_how_it_was_called():
    model = nn.Sequential(neuron.IFNode(), nn.Linear(5, 3))
    with pytest.raises(
        SpikestrapError, match=r"on an input \(4, 3\), layout 'step' .*RuntimeError"
    ):
        ss.bootstrap(model, 2)(torch.ones(4, 3))


def test_another_number_of_steps_in_a_neuron_is_refused():
    model = nn.Sequential(sl.IAFSqueeze(num_timesteps=3, spike_fn=SingleSpike), nn.Linear(3, 3))
    with pytest.raises(SpikestrapError, match=r"'0' ran for 3 steps, expected 4.* of its own"):
        ss.bootstrap(model, 4)(torch.ones(6, 3))
    match = r"'0' takes 3 steps in a call, and got 20 rows .* num_timesteps=4"
    with pytest.raises(SpikestrapError, match=match):
        ss.bootstrap(model, 4)(torch.ones(5, 3))


def test_another_size_of_batch_in_a_neuron_is_refused():
    model = nn.Sequential(sl.IAFSqueeze(batch_size=3, spike_fn=SingleSpike), nn.Linear(3, 3))
    with pytest.raises(SpikestrapError, match=r"got 20 rows .* and no batch_size"):
        ss.bootstrap(model, 4)(torch.ones(5, 3))


def test_graded_spikes_of_an_own_neuron_are_refused():
    class Doubles(nn.Module):
        def forward(self, x):
            return 2 * (x > 0).to(x.dtype)

    ss.wrap.register(Doubles)
    net = ss.bootstrap(nn.Sequential(nn.Linear(3, 3), Doubles()), 2)
    with pytest.raises(
        SpikestrapError, match=r"'1': expected spikes of 0 and 1, got values .* to 2"
    ):
        net(torch.ones(4, 3), ss.Mode.SAMPLE)


def test_a_users_subclass_counts_as_its_base():
    class Mine(neuron.LIFNode):
        pass

    assert ss.bootstrap(nn.Sequential(Mine()), 2)(torch.ones(4, 3)).shape == (4, 3)


class Keeps(nn.Module):
    """A neuron of one's own over (N, T, ...), which may refuse."""

    allowed = True

    def forward(self, x):
        self.v = x.cumsum(1)
        return ((self.v % 1) < x).to(x.dtype), self.v


class TestRegister:
    def test_what_is_said_holds(self):
        ss.wrap.register(
            Keeps,
            layout="batch_first",
            output=lambda neuron, rates, hidden: (rates, hidden),
            reset=lambda neuron: setattr(neuron, "v", None),
            states=("v",),
            refuse=lambda neuron: None if neuron.allowed else "not allowed",
        )

        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.keeps, self.last = Keeps(), nn.Linear(3, 2)

            def forward(self, x):
                return self.last(self.keeps(x)[0])

        model, x = Model(), torch.rand(20, 3)
        net = ss.bootstrap(model, 4)
        assert net.layout == "batch_first"
        torch.testing.assert_close(
            net(x, ss.Mode.SAMPLE), model(ss.hold(x, 4).mT.mT.transpose(0, 1)).mean(1)
        )
        rates = net(x, ss.Mode.FIT)
        torch.testing.assert_close(rates, model.last(net.units[0].sampler(x)))
        model.keeps.allowed = False
        with pytest.raises(SpikestrapError, match=r"'keeps' .*: not allowed"):
            ss.bootstrap(model, 4)

    @pytest.mark.parametrize(
        ("reset", "rate"),
        [
            (lambda neuron: setattr(neuron, "total", 0.5), 0.25),
            (lambda neuron, rows: setattr(neuron, "total", 0.5), 0.0),
        ],
    )
    def test_a_reset_that_needs_nothing_is_taken(self, reset, rate):
        class Adds(nn.Module):
            total = 0.0

            def forward(self, x):
                self.total = x if self.total is None else self.total + x
                return (self.total > 2).to(x.dtype)

        Adds.reset = reset
        ss.wrap.register(Adds, states=("total",))
        net, x = ss.bootstrap(nn.Sequential(Adds()), 4), torch.full((6, 3), 0.4)
        # From 0.5 the fourth step is above 2, from None no step is.
        for _ in range(2):
            assert net(x).unique().tolist() == [rate]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [((3,), r"class of nn\.Module, got 3"), ((int,), "got <class 'int'>")],
    )
    def test_refuses_what_is_no_class_of_modules(self, arguments, message):
        with pytest.raises(SpikestrapError, match=message):
            ss.wrap.register(*arguments)

    def test_refuses_an_unknown_layout(self):
        with pytest.raises(SpikestrapError, match=r"layout must be one of .* got 'own'"):
            ss.wrap.register(Keeps, layout="own")


def test_no_library_is_imported_unasked():
    code = """
import sys, torch, spikestrap as ss
class Net(torch.nn.Module): pass
try:
    ss.bootstrap(Net(), 4)
except ss.SpikestrapError as error:
    print(error)
print([m for m in ("snntorch", "spikingjelly", "norse", "sinabs") if m in sys.modules])
"""
    done = run(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "none, as no library of neurons is loaded" in lines[0]
    assert lines[1] == "[]"


def test_spikingjelly_before_version_2(monkeypatch):
    """Its neurons are one file, none of which is without spikes."""
    monkeypatch.setitem(sys.modules, neuron.base_node.__name__, None)
    monkeypatch.delattr(neuron, "NonSpikingBaseNode")
    monkeypatch.delattr(neuron, "base_node")
    spec = importlib.util.find_spec("spikestrap.wrap.spikingjelly")
    adapters = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(adapters)
    monkeypatch.setitem(sys.modules, spec.name, adapters)
    for fires in (neuron.IFNode(), snn.Leaky(0.9, init_hidden=True)):
        assert ss.bootstrap(nn.Sequential(fires), 2)(torch.ones(4, 3)).shape == (4, 3)
    with pytest.raises(SpikestrapError, match=r"EIFNode.*state over time"):
        ss.bootstrap(nn.Sequential(neuron.IFNode(), neuron.EIFNode()))
