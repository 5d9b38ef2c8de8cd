"""What does something else on mean rates than on spikes is refused, whatever its operations."""

import copy

import norse.torch as norse
import pytest
import sinabs.layers as sl
import snntorch as snn
import torch
from sinabs.activation import SingleSpike
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn
from torch.nn import functional as F

import spikestrap as ss
from spikestrap import SpikestrapError

T = 8
X = 4 * torch.rand(32, 20, generator=torch.Generator().manual_seed(0))


def leaky(**options):
    return snn.Leaky(beta=0.9, threshold=0.3, **options)


class Two(nn.Module):
    """A forward with a function of the spikes of two layers in it."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.one, self.lif1 = nn.Linear(20, 16), leaky(init_hidden=True)
        self.two, self.lif2 = nn.Linear(20, 16), leaky(init_hidden=True)
        self.last, self.lif3 = nn.Linear(16, 8), leaky(init_hidden=True)
        self.readout = nn.Linear(8, 3)

    def forward(self, x):
        between = self.function(self.lif1(self.one(x)), self.lif2(self.two(x)))
        return self.readout(self.lif3(self.last(between)))


class Loop(nn.Module):
    """The style of snnTorch's tutorials; `reduce` makes an output of those of all steps."""

    def __init__(self, reduce=torch.stack, feedback=False):
        super().__init__()
        self.num_steps, self.reduce, self.feedback = T, reduce, feedback
        self.fc1, self.lif1 = nn.Linear(20, 16), leaky()
        self.fc2, self.lif2 = nn.Linear(16, 3), leaky()
        self.back = nn.Linear(16, 16, bias=False)

    def forward(self, x):
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        spk1, outputs = torch.zeros(len(x), 16), []
        for _ in range(self.num_steps):
            z = self.fc1(x)
            spk1, mem1 = self.lif1(z + self.back(spk1) if self.feedback else z, mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            outputs.append(spk2)
        return self.reduce(outputs)


def run(model, modes=(ss.Mode.SAMPLE, ss.Mode.FIT, ss.Mode.ANN, ss.Mode.SNN), **options):
    net = ss.bootstrap(model, time_steps=T, **options)
    return [net(X, mode) for mode in modes]


@pytest.mark.parametrize(
    "function",
    [
        lambda a, b: torch.logical_or(a.bool(), b.bool()).float(),
        lambda a, b: (a.bool() | b.bool()).float(),
        lambda a, b: (a == 1).float() + b,
        lambda a, b: (a + b) % 2,
        lambda a, b: (a + b).int().float(),
        lambda a, b: torch.greater(a, b).float(),
        lambda a, b: torch.where(a.bool(), b, 1 - b),
        lambda a, b: b.masked_fill(a.bool(), 0.0),
        lambda a, b: torch.addcmul(a, a, b),
        lambda a, b: torch.mul(input=a, other=b),
        lambda a, b: torch.erf(a) - torch.erf(2 * b) * 2,
        lambda a, b: torch.linalg.norm(a, dim=1, keepdim=True) + b,
        lambda a, b: a + torch.cdist(a, b).mean(1, keepdim=True),
    ],
)
def test_what_does_not_commute_is_refused(function):
    with pytest.raises(SpikestrapError, match="does not commute"):
        run(Two(function))


@pytest.mark.parametrize(
    "function",
    [
        lambda a, b: a - b / 2,
        lambda a, b: 1 - a,
        lambda a, b: torch.cat((a, b), dim=1).unflatten(1, (2, 16)).mean(1),
        lambda a, b: F.conv1d(a.unsqueeze(1), torch.ones(1, 1, 3), padding=1).squeeze(1),
        lambda a, b: a.flip(1).roll(3, dims=1) + b.sum(1, keepdim=True),
    ],
)
def test_what_commutes_is_not(function):
    assert run(Two(function))[-1].shape == (32, 3)


def test_the_neuron_is_named_whose_input_is_wrong():
    with pytest.raises(SpikestrapError, match="the input of 'lif3' is not what it is on spikes"):
        run(Two(lambda a, b: (a == 1).float() + b))


def test_without_the_check_nothing_is_refused():
    assert run(Two(lambda a, b: (a + b) % 2), check=False)[-1].shape == (32, 3)


@pytest.mark.parametrize("reduce", [torch.stack, lambda outputs: sum(outputs) / len(outputs)])
def test_outputs_of_all_steps_are_not_refused(reduce):
    assert run(Loop(reduce))[-1].shape == (32, 3)


def test_an_output_of_the_last_step_is_refused():
    with pytest.raises(SpikestrapError, match="not that of one step alone"):
        run(Loop(lambda outputs: outputs[-1]))


class Weighted(Loop):
    """A learnt weight for each time step, all of which start the same."""

    num_steps = T

    def __init__(self, known):
        super().__init__(self.weigh)
        self.weights = nn.Parameter(torch.ones(T))
        if not known:  # in an attribute of its own; on rates it then loops T times too
            del self.num_steps

    def weigh(self, outputs):
        return torch.stack([w * out for w, out in zip(self.weights, outputs, strict=False)])


@pytest.mark.parametrize("known", [True, False])
def test_weights_of_time_steps_are_refused_though_they_start_the_same(known):
    with pytest.raises(SpikestrapError, match="or a weight for each time step"):
        run(Weighted(known))


def test_a_layer_that_makes_time_steps_is_told_from_a_neuron_in_two_places():
    model = nn.Sequential(
        layer.Conv2d(1, 4, 3),
        layer.TemporalEffectiveBatchNorm2d(T, 4),
        neuron.IFNode(),
        layer.Flatten(),
        layer.Linear(144, 3),
    )
    functional.set_step_mode(model, "m")
    net, x = ss.bootstrap(model, time_steps=T), torch.rand(16, 1, 8, 8)
    net(x, ss.Mode.SAMPLE)
    with pytest.raises(SpikestrapError, match=r"'2' got 8 steps in a call, expected 1: something"):
        net(x, ss.Mode.FIT)


def test_parameters_are_as_they_were_and_so_is_a_graph_through_them():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.lif1 = nn.Linear(20, 20), leaky(init_hidden=True, learn_beta=True)
            self.fc2, self.lif2 = nn.Linear(20, 20), leaky(init_hidden=True)
            self.fc2.weight = self.fc1.weight

        def forward(self, x):
            return self.lif2(self.fc2(self.lif1(self.fc1(x))))

    model = Tied()
    before = {name: (p, p.data_ptr(), p.detach().clone()) for name, p in model.named_parameters()}
    logits = run(model, (ss.Mode.SAMPLE, [ss.Mode.SNN, ss.Mode.ANN]))[-1]
    for name, p in model.named_parameters():
        same, memory, value = before[name]
        assert p is same
        assert p.data_ptr() == memory
        assert torch.equal(p, value)
    logits.sum().backward()
    assert model.fc1.weight.grad.abs().sum() > 0


def test_what_is_refused_once_is_refused_again():
    net = ss.bootstrap(Loop(lambda outputs: outputs[-1]), time_steps=T)
    net(X, ss.Mode.SAMPLE)
    for _ in range(3):
        with pytest.raises(SpikestrapError, match="not that of one step alone"):
            net(X, ss.Mode.FIT)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_many_steps_in_half_precision_are_not_refused(dtype):
    model = nn.Sequential(nn.Linear(20, 16), neuron.IFNode(), nn.Linear(16, 3)).to(dtype)
    net, x = ss.bootstrap(model, time_steps=700), X[:4].to(dtype)
    for mode in (ss.Mode.SAMPLE, ss.Mode.FIT, ss.Mode.ANN, ss.Mode.SNN):
        assert net(x, mode).dtype == dtype


@pytest.mark.parametrize("temperature", [float(T), T, torch.ones(4)])
def test_an_attribute_that_is_no_number_of_steps(temperature):
    class Cooled(nn.Sequential):
        T = None

        def forward(self, x):
            return super().forward(x) / torch.as_tensor(self.T).max()

    model = Cooled(layer.Linear(20, 16), neuron.IFNode(), layer.Linear(16, 3))
    functional.set_step_mode(model, "m")
    model.T = temperature
    assert run(model)[-1].shape == (32, 3)
    given = ss.bootstrap(model)
    for mode in (ss.Mode.SAMPLE, ss.Mode.FIT, ss.Mode.ANN):
        assert given(ss.hold(X, T), mode).shape == (32, 3)


def test_nor_is_one_that_is_a_size():
    class Chunks(nn.Sequential):
        T = None

        def forward(self, x):
            return super().forward(x.unflatten(-1, (self.T, -1)).mean(-2))

    model = Chunks(layer.Linear(5, 16), neuron.IFNode(step_mode="m"), layer.Linear(16, 3))
    model.T = 4
    net = ss.bootstrap(model, time_steps=4)
    for mode in (ss.Mode.SAMPLE, ss.Mode.FIT, ss.Mode.ANN, ss.Mode.SNN):
        assert net(X, mode).shape == (32, 3)


def test_feedback_of_spikes_is_refused():
    with pytest.raises(SpikestrapError, match="the input of 'lif1'"):
        run(Loop(feedback=True))


def test_the_users_random_numbers_are_left_alone():
    torch.manual_seed(0)
    net = ss.bootstrap(Loop(), time_steps=T)
    before = torch.get_rng_state()
    for mode in (ss.Mode.SAMPLE, ss.Mode.FIT, ss.Mode.ANN):
        net(X, mode)
    assert torch.equal(torch.get_rng_state(), before)


class Adds(nn.Module):
    """Changes a neuron's input and its spikes after the call, in place or not."""

    def __init__(self, in_place):
        super().__init__()
        self.in_place = in_place
        self.fc1, self.lif1 = nn.Linear(20, 16), leaky(init_hidden=True)
        self.fc2, self.lif2 = nn.Linear(16, 16), leaky(init_hidden=True)
        self.readout = nn.Linear(16, 3)

    def forward(self, x):
        z = self.fc1(x)
        spikes = self.lif1(z)
        if self.in_place:
            z += self.fc2(spikes)
            spikes = self.lif2(z)
            spikes *= 0.5
        else:
            spikes = 0.5 * self.lif2(z + self.fc2(spikes))
        return self.readout(spikes)


def test_changes_in_place_do_not_reach_what_is_sampled():
    found = []
    for in_place in (False, True):
        torch.manual_seed(0)
        model = Adds(in_place)
        outputs = run(model)
        outputs[2].sum().backward()
        found.append([*outputs, model.fc1.weight.grad])
    for plain, changed in zip(*found, strict=True):
        assert torch.equal(plain, changed)


class Named(nn.Module):
    """A model of Norse's whose state goes by another name, or nowhere."""

    def __init__(self):
        super().__init__()
        self.model = norse.SequentialState(nn.Linear(20, 16), norse.LIFCell(), nn.Linear(16, 3))

    def forward(self, x, hidden=None):
        return self.model(x, hidden)


def test_a_state_that_is_not_passed_on_is_refused():
    with pytest.raises(SpikestrapError, match=r"'model\.1' starts from its initial state at every"):
        run(Named())


@pytest.mark.parametrize("layout", ["own", "batch_first"])
def test_a_loop_over_an_input_with_steps_of_its_own_runs_on_rates_once(layout):
    class Over(nn.Module):
        def __init__(self):
            super().__init__()
            self.num_steps = T
            self.fc, self.lif, self.readout = nn.Linear(20, 16), leaky(), nn.Linear(16, 3)
            self.steps = []

        def forward(self, x):
            self.steps.append(self.num_steps)
            mem, outputs = self.lif.init_leaky(), []
            for t in range(self.num_steps):
                spikes, mem = self.lif(self.fc(x[t] if layout == "own" else x[:, t]), mem)
                outputs.append(self.readout(spikes))
            return torch.stack(outputs, dim=0 if layout == "own" else 1)

    model = Over()
    net = ss.bootstrap(model, layout=layout)
    x = ss.hold(X, T)
    for mode in (ss.Mode.SAMPLE, ss.Mode.FIT, ss.Mode.ANN):
        assert net(x, mode).shape == (32, 3)
    assert model.steps[-1] == 1
    assert model.num_steps == T


class Unfolds(nn.Module):
    """Its layers have time in the batch, its neuron has not; T is its own."""

    def __init__(self, layout):
        super().__init__()
        self.T, self.layout = T, layout
        self.fc, self.readout = nn.Linear(20, 16), nn.Linear(16, 3)
        self.neuron = {
            "time_first": neuron.IFNode(step_mode="m"),
            "folded": sl.IAF(spike_fn=SingleSpike),  # (N, T, ...)
        }[layout]
        self.sizes = []

    def forward(self, x):
        x = x.flatten(0, 1) if self.layout == "time_first" else x
        self.sizes.append(len(x))
        z = self.fc(x)
        z = z.unflatten(0, (self.T, -1) if self.layout == "time_first" else (-1, self.T))
        outputs = self.readout(self.neuron(z))
        return outputs if self.layout == "time_first" else outputs.flatten(0, 1)


@pytest.mark.parametrize("time_steps", [T, None])
@pytest.mark.parametrize("layout", ["time_first", "folded"])
def test_a_model_that_unfolds_time_by_steps_of_its_own_runs_on_rates_once(layout, time_steps):
    model = Unfolds(layout)
    # The same without a fold.
    plain = nn.Sequential(model.fc, copy.deepcopy(model.neuron), model.readout)
    net = ss.bootstrap(model, time_steps, layout=layout)
    other = ss.bootstrap(plain, time_steps)
    x = X if time_steps else ss.hold(X, T)
    for mode in (ss.Mode.SAMPLE, ss.Mode.FIT, ss.Mode.ANN, ss.Mode.SNN, ss.Mode.ANN):
        torch.testing.assert_close(net(x, mode), other(x, mode))
    assert model.sizes[-1] == len(X)
    assert model.T == T


def test_one_that_sums_over_its_own_steps_is_refused_for_the_sum():
    class Sums(nn.Module):
        def __init__(self):
            super().__init__()
            self.T, self.fc, self.neuron = T, nn.Linear(20, 3), neuron.IFNode()

        def forward(self, x):
            return sum(self.neuron(self.fc(x[t])) for t in range(self.T))

    net = ss.bootstrap(Sums(), time_steps=None, layout="time_first")
    x = ss.hold(X, T)
    net(x, ss.Mode.SAMPLE)
    with pytest.raises(SpikestrapError, match="or their mean, but not their sum"):
        net(x, ss.Mode.FIT)


def test_one_whose_steps_cannot_be_told_is_refused_with_the_reason():
    class Fixed(Unfolds):
        T = T

    model = Fixed("time_first")
    del model.T  # which leaves the class's
    with pytest.raises(SpikestrapError, match=r"on rates T is 1: .* one of num_steps, "):
        run(model)


def test_a_list_as_output_is_named():
    class Lists(nn.Sequential):
        def forward(self, x):
            return [super().forward(x)]

    model = Lists(nn.Linear(20, 16), leaky(init_hidden=True), nn.Linear(16, 3))
    with pytest.raises(SpikestrapError, match=r"expected the model to return logits .* got list"):
        run(model)


def test_a_wrapped_model_is_not_saved():
    model = nn.Sequential(nn.Linear(20, 16), leaky(init_hidden=True), nn.Linear(16, 3))
    with pytest.raises(SpikestrapError, match=r"save: expected a Network, .* got Wrapped"):
        ss.save(ss.bootstrap(model, time_steps=T), "model.net")
