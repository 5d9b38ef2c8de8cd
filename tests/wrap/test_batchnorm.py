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


class Shared(nn.Module):
    """One synapse and norm in two places, of two sizes, before a neuron each."""

    def __init__(self, step_mode):
        super().__init__()
        self.first, self.last = layer.Conv2d(1, 3, 1), layer.Linear(3, 2)
        self.synapse, self.norm = layer.Conv2d(3, 3, 1), layer.BatchNorm2d(3)
        self.pool = layer.AvgPool2d(2)
        self.neurons = nn.ModuleList(neuron.IFNode(v_threshold=0.5) for _ in range(3))
        functional.set_step_mode(self, step_mode)

    def forward(self, x):
        spikes = self.neurons[0](self.first(x))
        fine = self.neurons[1](self.norm(self.synapse(spikes)))
        coarse = self.neurons[2](self.norm(self.synapse(self.pool(spikes))))
        return self.last(fine.mean((-2, -1)) + coarse.mean((-2, -1)))


@pytest.mark.parametrize("step_mode", ["s", "m"])
def test_a_norm_in_two_places_moves_once_for_each(step_mode):
    model, expected = Shared(step_mode), nn.BatchNorm2d(3)
    net, seen = ss.bootstrap(model), []
    model.synapse.register_forward_hook(lambda _, args, output: seen.append(output.detach()))
    for scale in (1, 2):
        x = scale * torch.rand(T, N, 1, 4, 4)
        net(x, ss.Mode.SAMPLE)
        calls = seen[-2 * T :] if step_mode == "s" else seen[-2:]
        for place in (0, 1):
            mean = torch.stack(calls[place::2]).flatten(0, -5).mean(0)
            # The first batch sets them, to the mean over both places.
            expected.momentum = 1 / (1 + place) if scale == 1 else 0.1
            expected(mean)
    assert net.layout == ("step" if step_mode == "s" else "time_first")
    torch.testing.assert_close(model.norm.running_mean, expected.running_mean)
    torch.testing.assert_close(model.norm.running_var, expected.running_var)
    assert model.norm.num_batches_tracked == 4
    # As a pass on rates, in which the places are told apart by torch itself.
    net(x, ss.Mode.FIT)
    assert model.norm.num_batches_tracked == 6


class Loop(Shared):
    """Over time by itself: the calls of the places alternate."""

    def forward(self, x):
        return sum(super(Loop, self).forward(step) for step in x) / len(x)


class Leaves(Shared):
    """Without the norm's first place in the first step."""

    def forward(self, x):
        started = torch.is_tensor(self.neurons[0].v)
        spikes = self.neurons[0](self.first(x))
        fine = self.synapse(spikes)
        fine = self.neurons[1](self.norm(fine) if started else fine)
        return self.last((fine + self.neurons[2](self.norm(self.synapse(spikes)))).mean((2, 3)))


@pytest.mark.parametrize(("make", "layout"), [(Loop, "own"), (Leaves, "step")])
def test_places_that_cannot_be_told_apart_are_refused(make, layout):
    model = make("s")
    net, x = ss.bootstrap(model, layout=layout, check=False), torch.rand(T, N, 1, 4, 4)
    with pytest.raises(ss.SpikestrapError, match="'norm' is called in more than one place"):
        net(x)
    assert torch.equal(model.norm.running_var, torch.ones(3))
    net.eval()(x)


class Renorm(nn.Module):
    """Batch renormalization (Ioffe, arXiv:1702.03275, section 3), without bounds on r and d."""

    def __init__(self, norm, channels):
        super().__init__()
        self.weight, self.bias = norm.weight, norm.bias
        self.mean, self.deviation = norm.running_mean.clone(), (norm.running_var + norm.eps).sqrt()
        self.eps, self.channels = norm.eps, channels

    def forward(self, x):
        x = x.movedim(self.channels, -1)
        var, mean = torch.var_mean(x, list(range(x.ndim - 1)), correction=0)
        deviation = (var + self.eps).sqrt()
        r, d = (deviation / self.deviation).detach(), ((mean - self.mean) / self.deviation).detach()
        y = self.weight * ((x - mean) / deviation * r + d) + self.bias
        return y.movedim(-1, self.channels)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("mode", [ss.Mode.SNN, ss.Mode.SAMPLE, [ss.Mode.SNN, ss.Mode.ANN]])
def test_a_spiking_pass_goes_by_running_statistics_and_its_gradient_by_the_batchs(name, mode):
    model, *_ = MODELS[name]()
    if isinstance(mode, list):
        second = neuron.IFNode(step_mode="s" if name == "steps" else "m")
        model = type(model)(*model, nn.Linear(6 if name == "folded" else 3, 5), second)
    net, x = ss.bootstrap(model, check=False), 5 * torch.randn(T, N, 4)
    net(x, ss.Mode.SAMPLE)
    net(x, ss.Mode.FIT)
    evaluated, renormed = copy.deepcopy(net).eval(), copy.deepcopy(net)
    for place, module in list(renormed.named_modules()):
        if isinstance(module, nn.BatchNorm1d):
            renormed.set_submodule(place, Renorm(module, 2 if name == "over time" else 1))
    outputs = []
    for each in (net, renormed):
        each.zero_grad()
        outputs.append(each(2 * x + 1, mode))
        outputs[-1].square().sum().backward()
    assert torch.equal(outputs[0], evaluated(2 * x + 1, mode))
    torch.testing.assert_close(*outputs)
    expected = dict(renormed.named_parameters())
    for key, p in net.named_parameters():
        assert (p.grad is None) == (expected[key].grad is None), key
        if p.grad is not None:
            torch.testing.assert_close(p.grad, expected[key].grad, atol=1e-4, rtol=1e-4, msg=key)


@pytest.mark.parametrize("step_mode", ["s", "m"])
def test_a_step_on_spikes_leaves_the_scale_of_weights_before_a_norm_alone(step_mode):
    model, linear, _ = spikingjelly(step_mode)
    net = ss.bootstrap(model)
    net(torch.randn(T, N, 4), ss.Mode.SNN)
    net.zero_grad()
    net(torch.randn(T, N, 4), ss.Mode.SNN).square().sum().backward()
    along = (linear.weight * linear.weight.grad).sum(1) / linear.weight.norm(dim=1)
    assert (along.abs() < 1e-3 * linear.weight.grad.norm(dim=1)).all()
    torch.testing.assert_close(linear.bias.grad, torch.zeros(6), atol=1e-5, rtol=0)


@pytest.mark.parametrize("step_mode", ["s", "m"])
@pytest.mark.parametrize("mode", [ss.Mode.SNN, ss.Mode.SAMPLE])
def test_the_first_batch_sets_all_norms_however_deep(step_mode, mode):
    rows = [
        (layer.Linear(20, 20, bias=False), layer.BatchNorm1d(20), neuron.IFNode()) for _ in range(4)
    ]
    model = nn.Sequential(*(module for row in rows for module in row), layer.Linear(20, 3))
    functional.set_step_mode(model, step_mode)
    net, x = ss.bootstrap(model), torch.rand(T, 32, 20)
    torch.manual_seed(1)
    net(x, mode)
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(1))  # the passes that set them drew nothing
    seen = {row[1]: [] for row in rows}
    for norm, inputs in seen.items():
        norm.register_forward_pre_hook(lambda _, args, inputs=inputs: inputs.append(args[0]))
    net.eval()(x, ss.Mode.SNN)
    for norm, inputs in seen.items():
        mean = torch.stack(inputs).view(T, 32, 20).mean(0)
        assert mean.std() > 0.05  # no layer is silent
        torch.testing.assert_close(norm.running_mean, mean.mean(0))
        torch.testing.assert_close(norm.running_var, mean.var(0))
        assert norm.num_batches_tracked == 1


def test_norms_that_have_statistics_keep_them():
    model, linear, norm = spikingjelly("m")
    model.train()(torch.randn(T, N, 4))
    functional.reset_net(model)
    before = norm.running_mean.clone()
    x = torch.randn(T, N, 4)
    ss.bootstrap(model)(x, ss.Mode.SAMPLE)
    torch.testing.assert_close(
        norm.running_mean, 0.9 * before + 0.1 * linear(x).mean((0, 1)).detach()
    )
