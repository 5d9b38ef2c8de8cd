"""What does not commute with averaging over time is refused, with place and reason."""

import pytest
import snntorch as snn
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn
from torch.nn import functional as F

import spikestrap as ss
from spikestrap import SpikestrapError
from spikestrap.grid import BIAS

X = (torch.arange(4 * 2 * 8 * 8).view(4, 2, 8, 8) % 7).float()


def leaky(**options):
    return snn.Leaky(beta=0.9, threshold=0.2, init_hidden=True, **options)


def around(*between):
    """Two neurons, with something between them."""
    return nn.Sequential(
        nn.Conv2d(2, 2, 3, padding=1), leaky(), *between, leaky(), nn.Flatten(), nn.LazyLinear(3)
    )


class Rounded(nn.Module):
    """Rounds what it gets to a grid."""

    def forward(self, x):
        return BIAS(x)


class Written(nn.Module):
    """A forward with a function of the spikes of two layers in it."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.one, self.lif1 = nn.Conv2d(2, 2, 3, padding=1), leaky()
        self.two, self.lif2 = nn.Conv2d(2, 2, 3, padding=1), leaky()
        self.last = nn.LazyLinear(3)

    def forward(self, x):
        return self.last(self.function(self.lif1(self.one(x)), self.lif2(self.two(x))).flatten(1))


def wrapped(model):
    with torch.no_grad():
        model(X)  # shapes the lazy layer
    for module in model.modules():
        if isinstance(module, snn.Leaky):
            module.reset_mem()
    return ss.bootstrap(model, time_steps=3)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.MaxPool2d(2), "max_pool2d in '2', .* spikes of '1', .*maximum of rates"),
        (nn.AdaptiveMaxPool2d(2), "adaptive_max_pool2d in '2'"),
        (nn.ReLU(), "relu in '2', .*not linear"),
        (nn.ReLU(inplace=True), "relu_? in '2', .*not linear"),
        (nn.Sigmoid(), "sigmoid in '2'"),
        (nn.Softmax(1), "softmax in '2'"),
        (nn.GroupNorm(1, 2), "group_norm in '2', .*use batch norm"),
        (nn.LayerNorm(8), "layer_norm in '2'"),
        (nn.Sequential(nn.Conv2d(2, 2, 1), nn.Tanh()), "tanh in '2.1'"),
        (Rounded(), "straight_through in '2', .*not linear"),
    ],
)
@pytest.mark.parametrize("mode", [ss.Mode.SNN, ss.Mode.SAMPLE])
def test_modules_are_refused(module, message, mode):
    with pytest.raises(SpikestrapError, match=message):
        wrapped(around(module))(X, mode)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda a, b: F.max_pool2d(a, 2) + F.avg_pool2d(b, 2), "max_pool2d in the model's forward"),
        (lambda a, b: F.relu(a - b), "relu in the model's forward, .* 'lif[12]'"),
        (lambda a, b: a * b, "mul in .*the mean of a product"),
        (lambda a, b: a @ b.mT, "matmul in .*the mean of a product"),
        (lambda a, b: a / (1 + b), "div in .*the mean of a quotient"),
        (lambda a, b: 1 / (1 + a), "in .*the mean of a quotient|reciprocal"),
        (lambda a, b: a**2, "pow in"),
        (lambda a, b: (a + b).clamp(max=1), "clamp in"),
        (lambda a, b: torch.maximum(a, b), "maximum in"),
        (lambda a, b: F.softmax(a, 1), "softmax in"),
    ],
)
def test_functions_are_refused(function, message):
    with pytest.raises(SpikestrapError, match=message):
        wrapped(Written(function))(X)


def fills(a, b):
    result = torch.zeros(4, 2, 2, 8, 8)
    result[:, 0] = a
    result[:, 1] += b
    return result


@pytest.mark.parametrize(
    "function",
    [
        lambda a, b: a + 2 * b - 1,
        lambda a, b: torch.cat([a, b], 1)[:, 1:3].permute(0, 2, 3, 1),
        lambda a, b: F.avg_pool2d(a, 2) / 4 + F.interpolate(b, scale_factor=0.5),
        lambda a, b: a * torch.ones_like(b) + b * torch.sigmoid(torch.ones(8, 8)),
        lambda a, b: F.lp_pool2d(a, 1.0, 2) + F.adaptive_avg_pool2d(b, 4),
        lambda a, b: torch.stack([a, b]).sum(0).mT,
        lambda a, b: F.max_pool2d(torch.ones(4, 2, 8, 8), 2) + F.avg_pool2d(a - b, 2),
        fills,
    ],
)
def test_linear_functions_are_not_refused(function):
    net = wrapped(Written(function))
    for mode in (ss.Mode.SAMPLE, ss.Mode.FIT, ss.Mode.ANN, ss.Mode.SNN):
        assert net(X, mode).shape == (4, 3)


def test_before_the_first_neuron_anything_goes_for_a_static_input():
    model = nn.Sequential(nn.Conv2d(2, 2, 3), nn.MaxPool2d(2), nn.ReLU(), leaky(), nn.Flatten())
    assert ss.bootstrap(model, time_steps=3)(X).shape == (4, 18)


def test_an_input_over_time_is_refused_before_the_first_neuron_too():
    model = nn.Sequential(nn.Conv2d(2, 2, 3), nn.MaxPool2d(2), leaky(), nn.Flatten())
    with pytest.raises(SpikestrapError, match=r"max_pool2d in '1', on what comes from the input"):
        ss.bootstrap(model)(X.expand(3, 4, 2, 8, 8))


def test_spiking_residuals_by_products_are_refused():
    class IAnd(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = neuron.IFNode(), neuron.IFNode()

        def forward(self, x):
            spikes = self.one(x)
            return (spikes * (1 - self.two(spikes))).flatten(1)

    with pytest.raises(SpikestrapError, match="the mean of a product"):
        ss.bootstrap(IAnd(), time_steps=3)(X)


class TestReadout:
    def test_a_membrane_as_output_is_refused(self):
        class Membrane(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc, self.lif1 = nn.Linear(4, 3), snn.Leaky(0.9)

            def forward(self, x):
                mem, out = self.lif1.init_leaky(), []
                for _ in range(3):
                    _, mem = self.lif1(self.fc(x), mem)
                    out.append(mem)
                return torch.stack(out)

        with pytest.raises(SpikestrapError, match=r"from the membrane of 'lif1'.* read the spikes"):
            ss.bootstrap(Membrane(), time_steps=3)(torch.rand(5, 4))

    def test_a_membrane_read_from_the_neuron_is_refused(self):
        class Voltage(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc, self.node = layer.Linear(4, 3), neuron.LIFNode()

            def forward(self, x):
                self.node(self.fc(x))
                return 2 * self.node.v + 1

        with pytest.raises(SpikestrapError, match="from the membrane of 'node'"):
            ss.bootstrap(Voltage(), time_steps=3)(torch.rand(5, 4))

    def test_the_spikes_of_a_tuple_are_the_output(self):
        model = nn.Sequential(nn.Linear(4, 3), leaky(output=True))
        assert ss.bootstrap(model, time_steps=3)(torch.rand(5, 4)).shape == (5, 3)

    def test_a_functional_neuron_is_refused(self):
        fire = neuron.IFNode().surrogate_function

        class Functional(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc, self.node = layer.Linear(4, 3), neuron.IFNode()

            def forward(self, x):
                return fire(self.node(self.fc(x)) - 0.5)

        with pytest.raises(SpikestrapError, match="function cannot be wrapped; make it a module"):
            ss.bootstrap(Functional(), time_steps=3)(torch.rand(5, 4))
        assert ss.bootstrap(Functional(), time_steps=3, check=False)(torch.rand(5, 4)).ndim == 2

    def test_an_output_that_cannot_be_followed_is_refused(self):
        class Away(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc, self.node = layer.Linear(4, 3), neuron.IFNode()

            def forward(self, x):
                return torch.tensor(self.node(self.fc(x)).tolist())

        with pytest.raises(SpikestrapError, match="does not come from the spikes"):
            ss.bootstrap(Away(), time_steps=3)(torch.rand(5, 4))


class TestCalls:
    @staticmethod
    def two(forward):
        class Two(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc, self.one, self.two = nn.Linear(4, 4), neuron.IFNode(), neuron.IFNode()

            def forward(self, x):
                return forward(self, x)

        return Two()

    def test_an_unused_neuron_is_named(self):
        model = self.two(lambda self, x: self.one(self.fc(x)))
        with pytest.raises(SpikestrapError, match="'two' was not called by the model's forward"):
            ss.bootstrap(model, time_steps=3)(torch.rand(5, 4))

    def test_a_neuron_called_by_another_way_is_named(self):
        model = self.two(lambda self, x: self.two.single_step_forward(self.one(self.fc(x))))
        with pytest.raises(SpikestrapError, match="'two' was not called"):
            ss.bootstrap(model, time_steps=3)(torch.rand(5, 4))

    def test_a_neuron_in_two_places_is_named(self):
        model = self.two(lambda self, x: self.two(self.one(self.one(self.fc(x)))))
        with pytest.raises(SpikestrapError, match="calls 'one' 2 times, but time_steps=3"):
            ss.bootstrap(model, time_steps=3)(torch.rand(5, 4))
        with pytest.raises(SpikestrapError, match="'one' ran for 6 steps, expected 3"):
            ss.bootstrap(model, time_steps=3, layout="step")(torch.rand(5, 4))

    def test_a_crossover_against_the_order_of_calls_is_refused(self):
        model = self.two(lambda self, x: self.one(self.two(9 * self.fc(x))))
        net, x = ss.bootstrap(model, time_steps=3), torch.rand(50, 4)
        net(x, ss.Mode.SAMPLE)
        net(x, ss.Mode.FIT)
        with pytest.raises(SpikestrapError, match="'two' in ANN mode runs before"):
            net(x, ss.LayerMode(ss.Mode.ANN, 1))
        assert net(x, ss.Mode.ANN).shape == (50, 4)

    def test_a_sum_over_time_is_refused_on_rates(self):
        class Sums(nn.Sequential):
            def forward(self, x):
                return super().forward(x).sum(0)

        model = Sums(layer.Linear(4, 30), neuron.IFNode(), layer.Linear(30, 3))
        functional.set_step_mode(model, "m")
        net, x = ss.bootstrap(model, time_steps=3), 9 * torch.rand(20, 4)
        net(x, ss.Mode.SAMPLE)
        with pytest.raises(SpikestrapError, match="or their mean, but not their sum"):
            net(x, ss.Mode.FIT)
