"""Batch norm: one set of running statistics, of time means, in spiking passes and on rates."""

import copy

import norse.torch as norse
import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

import spikestrap as ss

T, N = 5, 8


def spikingjelly(step_mode):
    model = nn.Sequential(
        layer.Linear(4, 6), layer.BatchNorm1d(6), neuron.IFNode(), layer.Linear(6, 3)
    )
    functional.set_step_mode(model, step_mode)
    return model, model[0], model[1]


def norse_over_time():
    p = norse.LIFParameters(tau_syn_inv=torch.tensor(500.0), tau_mem_inv=torch.tensor(400.0))
    model = norse.SequentialState(
        nn.Linear(4, 6), norse.Lift(nn.BatchNorm1d(6)), norse.LIF(p), nn.Linear(6, 3)
    )
    return model, model[0], model[1].lifted_module


def folded():
    model = nn.Sequential(
        nn.Linear(4, 6), layer.SeqToANNContainer(nn.BatchNorm1d(6)), neuron.IFNode(step_mode="m")
    )
    return model, model[0], model[1][0]


MODELS = {
    "steps": lambda: spikingjelly("s"),
    "over time": lambda: spikingjelly("m"),
    "lifted": norse_over_time,
    "folded": folded,
}


@pytest.mark.parametrize("name", MODELS)
class TestBatchNorm:
    @pytest.mark.parametrize("mode", [ss.Mode.SNN, ss.Mode.SAMPLE])
    def test_spiking_passes_move_the_statistics_by_time_means(self, name, mode):
        model, linear, norm = MODELS[name]()
        net, x = ss.bootstrap(model), torch.randn(T, N, 4)
        expected = nn.BatchNorm1d(6)
        for batch in (x, 2 * x + 1):
            net(batch, mode)
            # The first batch sets them.
            expected.momentum = 0.1 if expected.num_batches_tracked else 1.0
            expected(linear(batch).mean(0))
        torch.testing.assert_close(norm.running_mean, expected.running_mean)
        torch.testing.assert_close(norm.running_var, expected.running_var)
        assert norm.num_batches_tracked == 2
        assert (norm.momentum, norm.training) == (0.1, True)

    def test_passes_on_rates_move_them_alike(self, name):
        model, *_ = MODELS[name]()
        net, x = ss.bootstrap(model), 5 * torch.randn(T, N, 4)
        net(x, ss.Mode.SAMPLE)
        net(x, ss.Mode.FIT)
        states = []
        for mode in (ss.Mode.SNN, ss.Mode.ANN, [ss.Mode.SNN]):
            twin = copy.deepcopy(net)
            twin(2 * x, mode)
            states.append(dict(twin.model.named_buffers()))
        for state in states[1:]:
            for key, value in state.items():
                torch.testing.assert_close(value, states[0][key])

    def test_evaluation_moves_nothing(self, name):
        model, _, norm = MODELS[name]()
        net = ss.bootstrap(model).eval()
        net(torch.randn(T, N, 4), ss.Mode.SAMPLE)
        assert norm.num_batches_tracked == 0
        assert torch.equal(norm.running_mean, torch.zeros(6))


def test_a_crossover_moves_the_statistics_once():
    model, linear, norm = spikingjelly("m")
    model.append(neuron.IFNode(step_mode="m"))
    net, x = ss.bootstrap(model), 5 * torch.randn(T, N, 4)
    net(x, ss.Mode.SAMPLE)
    net(x, ss.Mode.FIT)
    before = norm.running_mean.clone()
    net(x + 1, [ss.Mode.SNN, ss.Mode.ANN])
    mean = linear((x + 1).mean(0)).mean(0)
    torch.testing.assert_close(norm.running_mean, 0.9 * before + 0.1 * mean)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("mode", [ss.Mode.SNN, ss.Mode.SAMPLE, [ss.Mode.SNN, ss.Mode.ANN]])
def test_gradients_are_those_by_the_statistics_that_the_pass_went_by(name, mode):
    model, *_ = MODELS[name]()
    if isinstance(mode, list):
        second = neuron.IFNode(step_mode="s" if name == "steps" else "m")
        model = type(model)(*model, nn.Linear(6 if name == "folded" else 3, 5), second)
    net, x = ss.bootstrap(model), 5 * torch.randn(T, N, 4)
    net(x, ss.Mode.SAMPLE)
    net(x, ss.Mode.FIT)
    evaluated = copy.deepcopy(net).eval()  # whose statistics stay
    outputs = []
    for each in (net, evaluated):
        each.zero_grad()
        outputs.append(each(2 * x + 1, mode))
        outputs[-1].square().sum().backward()
    assert torch.equal(*outputs)
    for (key, p), q in zip(net.named_parameters(), evaluated.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None), key
        if p.grad is not None:
            assert torch.equal(p.grad, q.grad), key
