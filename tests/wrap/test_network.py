import copy
import io
import warnings

import norse.torch as norse
import pytest
import snntorch as snn
import torch
from sklearn.datasets import load_digits
from spikingjelly.activation_based import functional, layer, neuron
from tests.wrap.models import MODELS, SNNTorch, SNNTorchLoop, SpikingJelly
from torch import nn
from torch.nn import functional as F

import spikestrap as ss
from spikestrap import LayerMode, Mode, SpikestrapError
from spikestrap.train.evaluate import EventRate
from spikestrap.unit import units_of

SNN, ANN, SAMPLE, FIT = Mode.SNN, Mode.ANN, Mode.SAMPLE, Mode.FIT
every_model = pytest.mark.parametrize("name", MODELS)


def draw(batch=12):
    return 2 * torch.rand(batch, 1, 8, 8)


def fit(net, x):
    net(x, SAMPLE)
    net(x, FIT)
    return net


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    x = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 8
    y = torch.tensor(data.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x, y = x[order], y[order]
    return (x[:1400], y[:1400]), (x[1400:], y[1400:])


def train(net, x, y, epochs=14):
    optimizer = torch.optim.Adam(net.parameters(), lr=8e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    scheduler = ss.Scheduler(num_sample_iter=2, sample_period=2)
    net.train()
    for epoch in range(epochs):
        for i, rows in enumerate(torch.randperm(len(x)).split(50)):
            loss = F.cross_entropy(net(x[rows], scheduler.mode(epoch, i)), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        decay.step()
    return net.eval()


def accuracy(logits, y):
    return 100 * (logits.argmax(1) == y).float().mean().item()


@every_model
def test_trains_digits_and_runs_by_its_own_code(name, digits):
    (x, y), (test_x, test_y) = digits
    net = train(ss.bootstrap(MODELS[name](), time_steps=4), x, y)
    with torch.no_grad():
        reported = accuracy(net(test_x), test_y)
        own = accuracy(net.unwrap().eval().run(test_x, 4), test_y)
    assert own == pytest.approx(reported, abs=0.3)
    assert reported >= 95
    with torch.no_grad():
        assert accuracy(net(test_x, ANN), test_y) == pytest.approx(reported, abs=2)


@pytest.mark.parametrize("step_mode", ["m", "s"])
def test_rate_based_moves_running_statistics_once(step_mode):
    net = fit(ss.bootstrap(SpikingJelly(step_mode), time_steps=4), draw())
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    before = [int(norm.num_batches_tracked) for norm in norms]
    ss.rate_based(net, draw())
    assert before
    assert [int(norm.num_batches_tracked) for norm in norms] == [count + 1 for count in before]


@every_model
class TestModes:
    def test_logits_in_every_mode(self, name):
        x = draw()
        net = fit(ss.bootstrap(MODELS[name](), time_steps=4), x)
        for mode in (*Mode, LayerMode(ANN), LayerMode(SAMPLE, 1), [SNN, ANN, ANN]):
            logits = net(x, mode)
            assert logits.shape == (12, 10)
            assert torch.isfinite(logits).all()

    def test_snn_mode_is_the_models_own_run(self, name):
        x = draw()
        model = MODELS[name]().eval()
        net = ss.bootstrap(model, time_steps=4)
        torch.testing.assert_close(net(x), model.run(x, 4))

    def test_direct_training_has_the_models_own_gradients(self, name):
        x, weight = draw(), torch.randn(12, 10)
        model = MODELS[name]().eval()
        net = ss.bootstrap(model, time_steps=4)
        parameters = [p for p in model.parameters() if p.requires_grad]
        ours = torch.autograd.grad((net(x) * weight).sum(), parameters)
        theirs = torch.autograd.grad((model.run(x, 4) * weight).sum(), parameters)
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)

    def test_rate_based_has_the_models_own_logits_and_a_gradient_for_all(self, name):
        x = draw()
        net = fit(ss.bootstrap(MODELS[name](), time_steps=4).eval(), x)
        fresh = ss.bootstrap(MODELS[name](), time_steps=4).eval()  # has found nothing out yet
        fresh.load_state_dict(net.state_dict())
        for each in (net, fresh):
            logits = ss.rate_based(each, x)
            torch.testing.assert_close(logits, net(x, SNN))
            logits.square().sum().backward()
            assert all(p.grad.abs().sum() > 0 for p in each.parameters() if p.requires_grad)

    def test_unfitted_ann_says_what_to_run(self, name):
        net = ss.bootstrap(MODELS[name](), time_steps=4)
        with pytest.raises(ss.NotFittedError, match="before any fit: run some batches"):
            net(draw(), ANN)

    def test_pending_samples_are_fitted_first(self, name):
        net = ss.bootstrap(MODELS[name](), time_steps=4)
        net(draw(), SAMPLE)
        net(draw(), ANN)
        assert [unit.sampler.fitted.item() for unit in net.units] == [1, 1, 1]

    def test_the_model_stays_as_it_is(self, name):
        model, x = MODELS[name](), draw()
        before = copy.deepcopy(model.state_dict())
        attributes = {n: set(vars(m)) for n, m in model.named_modules()}
        net = fit(ss.bootstrap(model, time_steps=4).eval(), x)
        net(x, [SNN, ANN, ANN])
        with pytest.raises(SpikestrapError):
            net(x, [ANN, SNN, ANN])
        assert net.unwrap() is model
        after = model.state_dict()
        assert list(after) == list(before)
        for key, value in before.items():
            assert torch.equal(after[key], value), key
        for n, module in model.named_modules():
            # sinabs notes a firing rate and recordings in its neurons, snnTorch nothing.
            assert set(vars(module)) - attributes[n] <= {"recordings", "firing_rate", "i_syn"}
        assert all(not key.startswith("model.") for key in dict(net.units.named_parameters()))

    def test_copies_and_state_dicts_are_the_same_network(self, name):
        x = draw()
        net = fit(ss.bootstrap(MODELS[name](), time_steps=4), x).eval()
        twin = copy.deepcopy(net)
        fresh = ss.bootstrap(MODELS[name](), time_steps=4).eval()
        file = io.BytesIO()
        torch.save(net.state_dict(), file)
        file.seek(0)
        fresh.load_state_dict(torch.load(file, weights_only=True))
        for mode in (SNN, ANN, [SNN, SNN, ANN]):
            expected = net(x, mode)
            assert torch.equal(twin(x, mode), expected)
            assert torch.equal(fresh(x, mode), expected)
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.zero_()
        assert not torch.equal(twin(x), net(x))
        assert torch.equal(fresh(x), net(x))

    def test_is_copied_with_the_graph_of_its_own_training_in_its_neurons(self, name):
        x, model = draw(), MODELS[name]()
        net = fit(ss.bootstrap(model, time_steps=4), x).eval()
        expected = [net(x, mode) for mode in (SNN, ANN)]
        model.run(x, 4).sum().backward()
        states = [
            (neuron, state, getattr(neuron, state))
            for _, neuron, adapter in net._runner.neurons()
            for state in adapter.states(neuron)
        ]
        twin = copy.deepcopy(nn.Sequential(net))[0]
        assert all(getattr(neuron, state) is value for neuron, state, value in states)
        for mode, logits in zip((SNN, ANN), expected, strict=True):
            assert torch.equal(twin(x, mode), logits)
            assert torch.equal(net(x, mode), logits)
        assert twin.state_dict().keys() == net.state_dict().keys()
        twin.load_state_dict(net.state_dict())

    def test_a_copy_of_a_compiled_one_runs_by_itself(self, name):
        x = draw()
        net = fit(ss.bootstrap(MODELS[name](), time_steps=4), x).eval()
        net.compile(backend="eager")
        expected = net(x, ANN)
        twin = copy.deepcopy(net)
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.zero_()
        assert not torch.equal(twin(x, ANN), expected)
        assert torch.equal(net(x, ANN), expected)

    @pytest.mark.parametrize("below", [1, 2])
    def test_crossover_averages_before_the_first_ann_unit(self, name, below):
        x = draw()
        net = fit(ss.bootstrap(MODELS[name](), time_steps=4), x).eval()
        # Rates of the units below, from a run as an SNN; then the whole on rates.
        net(x, SAMPLE)
        rates = [None] * 3
        for i, unit in enumerate(net.units):
            append = unit.sampler.append_means

            def record(rate, mean, steps, i=i, append=append):
                rates[i] = rate
                append(rate, mean, steps)

            unit.sampler.append_means = record
        net(x, SAMPLE)
        for unit in net.units:
            del unit.sampler.append_means
            unit.sampler.clear()
        curves = [unit.sampler.forward for unit in net.units]
        for unit, rate in zip(net.units[:below], rates, strict=False):
            unit.sampler.forward = lambda z, rate=rate: rate
        expected = net(x, ANN)
        for unit, curve in zip(net.units, curves, strict=True):
            unit.sampler.forward = curve
        torch.testing.assert_close(net(x, LayerMode(ANN, below)), expected)

    def test_crossover_trains_all_layers_and_samples_none_below(self, name):
        x = draw()
        net = fit(ss.bootstrap(MODELS[name](), time_steps=4), x)
        net(x, LayerMode(SAMPLE, 1))
        net(x, LayerMode(FIT, 1)).square().sum().backward()
        assert [unit.sampler.fitted.item() for unit in net.units] == [1, 2, 2]
        for parameter in filter(lambda p: p.requires_grad, net.parameters()):
            assert parameter.grad.abs().sum() > 0


def differing():
    """Neurons of 12 channels that differ, and their first layers, by library."""
    many = torch.linspace(0.2, 1.5, 12)
    cuba = norse.LIFBoxParameters(tau_mem_inv=torch.tensor(250.0), v_th=many)
    return {
        "snntorch": (nn.Linear(6, 12), snn.Leaky(beta=0.9, threshold=many, init_hidden=True)),
        "convolution": (
            nn.Conv2d(1, 12, 3),
            snn.Leaky(beta=torch.linspace(0.1, 0.99, 12).view(12, 1, 1), init_hidden=True),
        ),
        "norse": (nn.Linear(6, 12), norse.LIFBoxCell(cuba)),
    }


@pytest.mark.parametrize("kind", ["snntorch", "convolution", "norse"])
def test_neurons_that_differ_have_a_curve_each(kind):
    synapse, lif = differing()[kind]
    model = norse.SequentialState(synapse, lif) if kind == "norse" else nn.Sequential(synapse, lif)
    net = ss.bootstrap(model, time_steps=8)
    assert net.units[0].sampler.channels == 12
    x = 4 * torch.rand(200, 1, 6, 6) if kind == "convolution" else 4 * torch.rand(2000, 6)
    fit(net, x)
    (found,) = ss.diagnose(net, [x])
    assert found.curve_gap < 0.03
    alike = ss.bootstrap(copy.deepcopy(model), time_steps=8, sampler={"per": "layer"})
    fit(alike, x)
    assert ss.diagnose(alike, [x])[0].curve_gap > 2 * found.curve_gap


def test_neurons_that_are_alike_share_a_curve_whatever_their_state():
    model = nn.Sequential(
        nn.Linear(6, 12), snn.Leaky(beta=torch.full((12,), 0.9), init_hidden=True)
    )
    model(4 * torch.rand(3, 6))
    assert model[1].mem.unique().numel() > 1
    assert ss.bootstrap(model, time_steps=8).units[0].sampler.per == "layer"
    # Where they are asked for, their number is the parameters'.
    net = ss.bootstrap(model, time_steps=8, sampler={"per": "channel"})
    assert net.units[0].sampler.channels == 12


class Grouped(nn.Module):
    """Layers first, neurons behind them: what is defined before a neuron is not what it gets."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 5, 3, padding=1)
        self.conv3, self.last = nn.Conv2d(5, 1, 3), nn.Linear(36, 10)
        self.one, self.two, self.three = (snn.Leaky(0.9, init_hidden=True) for _ in range(3))

    def forward(self, x):
        x = self.two(self.conv2(self.one(self.conv1(x))))
        return self.last(self.three(self.conv3(x)).flatten(1))


def curves(net):
    return [(unit.sampler.per, unit.sampler.channels) for unit in net.units]


class TestFeatureMaps:
    @every_model
    def test_have_a_curve_each(self, name):
        net = ss.bootstrap(MODELS[name](), time_steps=4)
        expected = [("channel", 8), ("channel", 16), ("layer", 1)]
        assert curves(net) == expected
        fit(net, draw(64))
        assert curves(net) == expected

    def test_are_found_where_the_definition_shows_them_not(self):
        net, x = ss.bootstrap(Grouped(), time_steps=4), 4 * draw(64)
        first = copy.deepcopy(net.state_dict())
        fit(net, x)
        assert curves(net) == [("channel", 3), ("channel", 5), ("layer", 1)]
        twin = ss.bootstrap(Grouped(), time_steps=4)
        twin.load_state_dict(net.state_dict())
        assert torch.equal(twin(x, ANN), net(x, ANN))
        net.load_state_dict(first)
        with pytest.raises(ss.NotFittedError):
            net(x, ANN)
        fit(net, x)
        assert curves(net) == curves(twin)

    def test_share_a_curve_where_it_is_said(self):
        net = fit(ss.bootstrap(Grouped(), 4, sampler={"per": "layer"}), draw())
        assert curves(net) == 3 * [("layer", 1)]

    @pytest.mark.parametrize("features", [(6,), (5, 6)])
    def test_others_share_one(self, features):
        model = nn.Sequential(nn.Linear(6, 12), snn.Leaky(0.9, init_hidden=True))
        if len(features) > 1:
            model.append(nn.Flatten())
        net = fit(ss.bootstrap(model, 4), 4 * torch.rand(16, *features))
        assert curves(net) == [("layer", 1)]

    def test_are_told_before_anything_is_known_of_them(self):
        net = ss.bootstrap(Grouped(), time_steps=4)
        found = ss.diagnose(net, [4 * draw(64)])
        assert [layer.fitted for layer in found] == 3 * [False]
        assert all(layer.event_rate > 0 for layer in found[:1])


class Residual(nn.Module):
    """A forward of one's own, with a residual connection and a functional part."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), snn.Leaky(0.9, init_hidden=True))
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.lif = snn.Leaky(beta=0.9, init_hidden=True)
        self.head = nn.Linear(128, 10)

    def forward(self, x):
        x = self.stem(x)
        x = x + 0.5 * self.lif(self.norm(self.conv(x)))
        return self.head(F.adaptive_avg_pool2d(x, 4).flatten(1))


class TestResidual:
    def test_trains(self, digits):
        (x, y), (test_x, test_y) = digits
        net = train(ss.bootstrap(Residual(), time_steps=4), x, y, epochs=10)
        with torch.no_grad():
            assert accuracy(net(test_x), test_y) >= 90
            assert net(test_x, ANN).argmax(1).eq(net(test_x).argmax(1)).float().mean() > 0.9

    def test_units_are_named_by_their_path(self):
        net = ss.bootstrap(Residual(), time_steps=4)
        assert [unit.name for unit in net.units] == ["stem.1", "lif"]

    def test_a_silent_layer_is_named(self):
        model = Residual()
        nn.init.constant_(model.norm.bias, -9.0)
        net = ss.bootstrap(model, time_steps=4).eval()
        net(draw(), SAMPLE)
        with pytest.warns(ss.SpikestrapWarning, match="layer 'lif' never spiked") as warned:
            net(draw(), FIT)
        assert warned[0].filename == __file__
        assert "v_init" not in str(warned[0].message)  # snnTorch's neurons have none


class OneLayer(nn.Module):
    """Modules for loops over time."""

    def __init__(self):
        super().__init__()
        self.first, self.lif, self.last = nn.Linear(5, 9), snn.Leaky(0.9), nn.Linear(9, 3)


class TestLayouts:
    def test_a_loop_runs_on_rates_for_one_step_only(self):
        x, model = draw(), SNNTorchLoop()
        net = fit(ss.bootstrap(model, time_steps=4), x)
        assert net.layout == "own"
        calls = []
        model.conv1.register_forward_hook(lambda *_: calls.append(1))
        net(x, ANN)
        assert (len(calls), model.num_steps) == (1, 4)

    @pytest.mark.parametrize("reduce", ["sum", "mean"])
    @pytest.mark.parametrize("known", [True, False])
    def test_a_loop_that_adds_up_its_steps_is_right_too(self, reduce, known):
        class Loop(SNNTorch):
            def __init__(self):
                super().__init__()
                setattr(self, "num_steps" if known else "duration", 4)

            def forward(self, x):
                steps = self.num_steps if known else self.duration
                outputs = torch.stack([super(Loop, self).forward(x) for _ in range(steps)])
                return outputs.sum(0) if reduce == "sum" else outputs.mean(0)

        x, model = draw(), Loop()
        net = fit(ss.bootstrap(model, time_steps=4), x).eval()
        plain = SNNTorch()
        plain.load_state_dict(model.state_dict())
        twin = fit(ss.bootstrap(plain, time_steps=4), x).eval()
        factor = 4 if reduce == "sum" else 1
        for mode in (SNN, ANN, [SNN, ANN, ANN]):
            torch.testing.assert_close(net(x, mode), factor * twin(x, mode))
        calls = []
        model.conv1.register_forward_hook(lambda *_: calls.append(1))
        net(x, ANN)
        assert len(calls) == (1 if known and reduce == "mean" else 4)

    def test_a_sum_is_seen_though_the_output_neuron_was_silent(self):
        class Sum(nn.Module):
            def __init__(self):
                super().__init__()
                self.num_steps = 8
                self.fc = nn.Linear(6, 5)
                self.lif = snn.Leaky(beta=0.9, init_hidden=True, reset_mechanism="zero")

            def forward(self, x):
                self.lif.reset_mem()
                return torch.stack([self.lif(self.fc(x)) for _ in range(self.num_steps)]).sum(0)

        model, x = Sum(), torch.rand(12, 6)
        nn.init.constant_(model.fc.bias, -9.0)
        net = ss.bootstrap(model, time_steps=8).eval()
        net(x, SAMPLE)
        with pytest.warns(ss.SpikestrapWarning, match="never spiked"):
            assert not net(x, FIT).any()
        nn.init.constant_(model.fc.bias, 1.0)
        fit(net, x)
        torch.testing.assert_close(net(x, ANN).mean(), net(x).mean(), rtol=0.1, atol=0)

    @pytest.mark.parametrize("batch", [1, 4])
    def test_a_loop_over_the_input_is_seen_in_a_batch_of_one(self, batch):
        class OverTime(SNNTorchLoop):
            def forward(self, x):
                mem, outputs = self.lif1.init_leaky(), []
                for t in range(x.shape[0]):
                    spikes, mem = self.lif1(x[t], mem)
                    outputs.append(spikes)
                return torch.stack(outputs)

        model = OverTime()
        for name in ("lif2", "lif3"):
            delattr(model, name)
        x = torch.rand(8, batch, 20)
        with pytest.raises(SpikestrapError, match=r'layout="own" with time_steps=None'):
            ss.bootstrap(model)(x)
        torch.testing.assert_close(ss.bootstrap(model, layout="own")(x), model(x).mean(0))

    @pytest.mark.parametrize("batch", [1, 4, 12])
    def test_a_first_batch_of_any_size_is_contiguous(self, batch):
        class Views(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc, self.lif = nn.Linear(6, 3), neuron.IFNode(step_mode="m")

            def forward(self, x):
                steps, n = x.shape[:2]
                return self.lif(self.fc(x.view(steps * n, 6)).view(steps, n, 3))

        x = torch.rand(4, batch, 6)
        for layout in (None, "own"):
            model = Views()
            torch.testing.assert_close(ss.bootstrap(model, layout=layout)(x), model(x).mean(0))

    @pytest.mark.parametrize("batch", [1, 4])
    def test_a_model_for_one_size_of_batch(self, batch):
        class Fixed(nn.Module):
            def __init__(self, mode):
                super().__init__()
                self.fc, self.lif = nn.Linear(6, 3), neuron.IFNode(step_mode=mode)
                self.lead = (batch, 6) if mode == "s" else (-1, batch, 6)

            def forward(self, x):
                return self.lif(self.fc(x.reshape(self.lead)))

        for mode in "sm":
            net = fit(ss.bootstrap(Fixed(mode), time_steps=4), 2 * torch.rand(batch, 6))
            assert net(torch.rand(batch, 6), ANN).shape == (batch, 3)

    def test_a_neuron_in_two_places_is_named_by_a_first_pass_on_rates(self):
        class Twice(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.last = nn.Linear(6, 5), nn.Linear(5, 3)
                self.lif = neuron.IFNode(step_mode="m")

            def forward(self, x):
                return self.lif(self.last(self.lif(self.first(x))))

        with pytest.raises(SpikestrapError, match="'lif' ran for 2 steps, expected 1"):
            ss.bootstrap(Twice(), time_steps=4)(torch.rand(12, 6), ANN)

    @pytest.mark.parametrize("steps", [2, 4])
    @pytest.mark.parametrize("second", ["beside", "behind"])
    def test_a_neuron_in_two_places_is_not_taken_for_a_loop(self, steps, second):
        class Twice(nn.Module):
            def __init__(self):
                super().__init__()
                self.T, self.fc, self.last = steps, nn.Linear(6, 6), nn.Linear(6, 3)
                self.lif = snn.Leaky(beta=0.9, init_hidden=True)

            def forward(self, x):
                spikes = self.lif(self.fc(x))
                return self.last(spikes + self.lif(self.fc(-x if second == "beside" else spikes)))

        with pytest.raises(SpikestrapError, match=r"calls 'lif' 2 times.* used in 2 places\?"):
            ss.bootstrap(Twice(), time_steps=steps)(torch.rand(12, 6))

    @pytest.mark.parametrize("known", [True, False])
    def test_a_loop_that_makes_frames_of_its_input_is_told_from_two_places(self, known):
        class Frames(SNNTorch):
            def __init__(self):
                super().__init__()
                setattr(self, "num_steps" if known else "duration", 4)

            def forward(self, x):
                steps = range(self.num_steps if known else self.duration)
                return torch.stack([super(Frames, self).forward(t * x) for t in steps])

        x, model = draw(), Frames()
        own = ss.bootstrap(model, time_steps=4, layout="own")(x)
        if known:
            assert torch.equal(ss.bootstrap(model, time_steps=4)(x), own)
        else:
            with pytest.raises(SpikestrapError, match=r"another input .* make that input before"):
                ss.bootstrap(model, time_steps=4)(x)
            net = ss.bootstrap(model, time_steps=4, layout="own")
            net(x, SAMPLE)
            with pytest.raises(SpikestrapError, match=r"another input .* 'lif1' at each step"):
                net(x, FIT)

    @pytest.mark.parametrize("layout", ["time_first", "batch_first"])
    def test_axes_the_wrong_way_round_show_with_as_many_images_as_steps(self, layout):
        class OtherWay(OneLayer):
            def forward(self, x):
                mem, outputs = self.lif.reset_mem(), []
                for z in x if layout == "time_first" else x.transpose(0, 1):
                    spikes, mem = self.lif(self.first(z), mem)
                    outputs.append(spikes)
                return torch.stack(outputs, 1 if layout == "time_first" else 0)

        for batch, message in ((7, "N and T the other way round"), (12, "those of each step in")):
            net = ss.bootstrap(OtherWay(), layout=layout)
            with pytest.raises(SpikestrapError, match=message):
                net(torch.rand(7, batch, 5))

    def test_what_draws_at_random_is_not_taken_for_axes_the_wrong_way_round(self):
        class Draws(OneLayer):
            def forward(self, x):
                mem, outputs = self.lif.reset_mem(), []
                for z in x:
                    spikes, mem = self.lif(self.first(z * torch.randn_like(z)), mem)
                    outputs.append(self.last(spikes))
                return torch.stack(outputs)

        net = ss.bootstrap(Draws(), layout="time_first", check=False)
        assert net(torch.rand(7, 7, 5)).shape == (7, 3)

    @pytest.mark.parametrize("batch", [4, 12])
    def test_time_second_is_not_taken_for_the_batch(self, batch):
        class Second(SNNTorchLoop):
            def forward(self, x):
                return super().forward(x)[0].transpose(0, 1)

        with pytest.raises(SpikestrapError, match=r"expected the model to return logits \("):
            ss.bootstrap(Second(), time_steps=4)(draw(batch))

    def test_a_first_batch_of_one_for_one_step(self):
        model = nn.Sequential(nn.Linear(6, 3), snn.Leaky(beta=0.5, init_hidden=True))

        class Flat(nn.Module):
            def __init__(self):
                super().__init__()
                self.body = model

            def forward(self, x):
                return self.body(x.view(x.shape[0], -1))

        assert ss.bootstrap(Flat(), time_steps=1)(torch.rand(1, 2, 3)).shape == (1, 3)

    @pytest.mark.parametrize("known", [True, False])
    def test_a_model_that_encodes_at_random_is_refused(self, known):
        class Encodes(SNNTorch):
            def __init__(self):
                super().__init__()
                self.num_steps = 4

            def forward(self, x):
                x = torch.bernoulli((x / 2).expand(self.num_steps, *x.shape))
                return torch.stack([super(Encodes, self).forward(frame) for frame in x])

        class Step(SNNTorch):
            def forward(self, x):
                return super().forward(torch.bernoulli(x / 2))

        net, x = ss.bootstrap((Encodes if known else Step)(), time_steps=4), draw()
        net(x, SAMPLE)
        with pytest.raises(SpikestrapError, match=r"'lif1' is another each time .* at random"):
            net(x, FIT)

    def test_a_model_that_repeats_its_input_itself(self):
        """The style of SpikingJelly's tutorials, in multi-step mode."""

        class Repeats(nn.Module):
            def __init__(self):
                super().__init__()
                self.T, self.body = 4, SpikingJelly("m")

            def forward(self, x):
                return self.body(x.unsqueeze(0).repeat(self.T, 1, 1, 1, 1)).mean(0)

        x, model = draw(), Repeats()
        with pytest.raises(SpikestrapError, match=r"failed on an input \(4, 12, 1, 8, 8\), layout"):
            ss.bootstrap(model, time_steps=4)(x)
        net = fit(ss.bootstrap(model, time_steps=4, layout="own"), x).eval()
        twin = ss.bootstrap(model.body, time_steps=4).eval()
        twin.units.load_state_dict(net.units.state_dict())
        for mode in (SNN, ANN, [SNN, ANN, ANN]):
            torch.testing.assert_close(net(x, mode), twin(x, mode))

    def test_norms_of_time_that_such_a_model_folds(self):
        class Repeats(nn.Module):
            def __init__(self):
                super().__init__()
                self.T, self.conv, self.norm = 4, nn.Conv2d(1, 8, 3, bias=False), nn.BatchNorm2d(8)
                self.body = layer.SeqToANNContainer(self.conv, self.norm)
                self.lif = neuron.LIFNode(step_mode="m")

            def frames(self, x):
                return x * torch.arange(1.0, self.T + 1).view(-1, 1, 1, 1, 1)

            def forward(self, x):
                return self.lif(self.body(self.frames(x))).flatten(2).mean(0)

        x, model = draw(), Repeats()
        ss.bootstrap(model, time_steps=4, layout="own").train()(x, SAMPLE)
        means = torch.stack([model.conv(frame) for frame in model.frames(x)]).mean(0)
        torch.testing.assert_close(model.norm.running_mean, means.mean((0, 2, 3)))
        torch.testing.assert_close(model.norm.running_var, means.var((0, 2, 3)))

    def test_norse_over_time(self):
        x = 9 * torch.rand(12, 6)
        p = norse.LIFParameters(tau_syn_inv=torch.tensor(500.0), tau_mem_inv=torch.tensor(400.0))
        model = norse.SequentialState(
            norse.Lift(nn.Linear(6, 8)),
            norse.LIF(p),
            nn.Linear(8, 8),
            norse.LIF(p),
            nn.Linear(8, 3),
        )
        net = fit(ss.bootstrap(model, time_steps=6), x)
        assert net.layout == "time_first"
        torch.testing.assert_close(net(x), model(ss.hold(x, 6))[0].mean(0))
        assert net(x, [SNN, ANN]).shape == (12, 3)

    def test_cells_that_the_model_runs_over_time(self):
        class Lifted(nn.Module):
            def __init__(self):
                super().__init__()
                box = norse.LIFBoxParameters(
                    tau_mem_inv=torch.tensor(400.0), v_th=torch.tensor(0.2)
                )
                self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)
                self.lif = norse.Lift(norse.LIFBoxCell(box))

            def forward(self, x):
                return self.last(self.lif(self.first(x))[0])

        model, x = Lifted(), 2 * torch.rand(12, 6)
        net = fit(ss.bootstrap(model, time_steps=5, layout="time_first"), x)
        torch.testing.assert_close(net(x), model(ss.hold(x, 5)).mean(0))
        assert net.units[0].sampler.time_steps == 5
        rates = net.units[0].sampler(model.first(x))
        torch.testing.assert_close(net(x, ANN), model.last(rates))

    def test_the_input_is_told_from_the_membrane_by_its_keyword(self):
        class ByName(OneLayer):
            def forward(self, x):
                mem, outputs = self.lif.reset_mem(), []
                for _ in range(4):
                    spikes, mem = self.lif(mem=mem, input_=self.first(x))
                    outputs.append(self.last(spikes))
                return torch.stack(outputs)

        x, model = 4 * torch.rand(12, 5), ByName()
        net = fit(ss.bootstrap(model, time_steps=4), x)
        torch.testing.assert_close(net(x), model(x).mean(0))
        rates = net.units[0].sampler(model.first(x))
        torch.testing.assert_close(net(x, ANN), model.last(rates))

    def test_inputs_over_time_to_a_loop(self):
        class Loop(OneLayer):
            def forward(self, x):
                mem, outputs = self.lif.reset_mem(), []
                for z in x:
                    spikes, mem = self.lif(self.first(z), mem)
                    outputs.append(self.last(spikes))
                return torch.stack(outputs)

        x, model = 4 * torch.rand(7, 12, 5), Loop()
        with pytest.raises(SpikestrapError, match='layout="own"'):
            ss.bootstrap(model)(x)
        net = fit(ss.bootstrap(model, layout="own"), x)
        torch.testing.assert_close(net(x), model(x).mean(0))
        rates = net.units[0].sampler(model.first(x.mean(0)))
        torch.testing.assert_close(net(x, ANN), model.last(rates))

    @pytest.mark.parametrize("layout", ["time_first", "batch_first", "own"])
    @pytest.mark.parametrize("below", [1, 2])
    def test_a_crossover_in_a_loop_over_the_input(self, layout, below):
        class Loop(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc1, self.lif1 = nn.Linear(6, 20), snn.Leaky(0.9, threshold=0.5)
                self.fc2, self.lif2 = nn.Linear(20, 20), snn.Leaky(0.9, threshold=0.5)
                self.fc3, self.lif3 = nn.Linear(20, 9), snn.Leaky(0.9, threshold=0.5)
                self.last = nn.Linear(9, 3)

            def fire(self, x, until):
                """Spikes of each step (T, N, ...) after so many layers."""
                mems, outputs = [self.lif1.reset_mem() for _ in range(3)], []
                for z in x:
                    for i in range(until):
                        fc, lif = (
                            self.get_submodule(f"fc{i + 1}"),
                            self.get_submodule(f"lif{i + 1}"),
                        )
                        z, mems[i] = lif(fc(z), mems[i])
                    outputs.append(z)
                return torch.stack(outputs)

            def forward(self, x):
                if layout == "batch_first":
                    return self.last(self.fire(x.transpose(0, 1), 3)).transpose(0, 1)
                return self.last(self.fire(x, 3))

        x, model = 4 * torch.rand(7, 12, 6), Loop()
        net = fit(ss.bootstrap(model, layout=layout), x)
        logits = net(x, [SNN] * below + [ANN] * (3 - below))
        rates = model.fire(x, below).mean(0)
        for i in range(below, 3):
            rates = net.units[i].sampler(model.get_submodule(f"fc{i + 1}")(rates))
        torch.testing.assert_close(logits, model.last(rates))
        ours, theirs = (
            torch.autograd.grad(out.square().sum(), model.fc1.weight)[0]
            for out in (logits, model.last(rates))
        )
        torch.testing.assert_close(ours, theirs)

    def test_a_container_of_single_steps(self):
        """SpikingJelly's, which loops over (T, N, ...)."""
        body = layer.MultiStepContainer(
            nn.Linear(6, 20), neuron.IFNode(0.5), nn.Linear(20, 9), neuron.IFNode(0.3)
        )
        model, x = nn.Sequential(body, nn.Linear(9, 3)), 4 * torch.rand(12, 6)
        with pytest.raises(SpikestrapError, match='layout="time_first"'):
            ss.bootstrap(model, time_steps=5)(x)
        net = fit(ss.bootstrap(model, time_steps=5, layout="time_first"), x)
        spikes = body[1]
        rates = torch.stack([spikes(body[0](x)) for _ in range(5)]).mean(0)
        rates = net.units[1].sampler(body[2](rates))
        torch.testing.assert_close(net(x, [SNN, ANN]), model[1](rates))

    def test_a_crossover_above_neurons_that_take_time_in_two_ways(self):
        box = norse.LIFBoxParameters(tau_mem_inv=torch.tensor(400.0), v_th=torch.tensor(0.2))

        class Mixed(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc1, self.lif1 = nn.Linear(6, 8), neuron.IFNode(0.5, step_mode="m")
                self.fc2, self.lif2 = nn.Linear(8, 8), norse.Lift(norse.LIFBoxCell(box))
                self.fc3, self.lif3 = nn.Linear(8, 8), neuron.IFNode(0.5, step_mode="m")

            def forward(self, x):
                spikes = self.lif2(self.fc2(self.lif1(self.fc1(x))))[0]
                return self.lif3(self.fc3(spikes))

        model, x = Mixed(), 4 * torch.rand(12, 6)
        net = fit(ss.bootstrap(model, time_steps=5, layout="time_first"), x)
        spikes = model.lif2(model.fc2(model.lif1(model.fc1(ss.hold(x, 5)))))[0]
        rates = net.units[2].sampler(model.fc3(spikes.mean(0)))
        torch.testing.assert_close(net(x, [SNN, SNN, ANN]), rates)

    def test_mixed_neurons_need_a_layout(self):
        model = nn.Sequential(
            neuron.LIFNode(step_mode="s"), nn.Linear(3, 3), neuron.LIFNode(step_mode="m")
        )
        with pytest.raises(
            SpikestrapError, match=r"different ways .*'0': 'step', '2': 'time_first'"
        ):
            ss.bootstrap(model, time_steps=4)


def test_dropout_has_one_mask_and_leaves_none_behind():
    model = nn.Sequential(
        layer.Linear(6, 40), neuron.IFNode(), layer.Dropout(0.5), layer.Linear(40, 3)
    )
    functional.set_step_mode(model, "m")
    net, x = ss.bootstrap(model, time_steps=4), 9 * torch.rand(12, 6)
    assert not torch.equal(net(x), net(x))
    assert model[2].mask is None
    fit(net, x)
    assert not torch.equal(net(x, ANN), net(x, ANN))


def test_sequences_of_other_lengths_are_refused():
    net = ss.bootstrap(nn.Sequential(nn.Linear(3, 4), snn.Leaky(0.9, init_hidden=True)))
    with ss.ragged(torch.tensor([1, 2])), pytest.raises(SpikestrapError, match="no lengths"):
        net(torch.rand(2, 2, 3))


def test_no_warning_of_torch():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net = ss.bootstrap(SpikingJelly("m"), time_steps=4)
        fit(net, draw())


@every_model
def test_units_are_found_and_their_spikes_counted(name):
    net, x = fit(ss.bootstrap(MODELS[name](), time_steps=4), draw()), draw()
    found = list(units_of(net))
    assert [unit for _, unit in found] == list(net.units)
    seen = []
    hooks = [
        unit.register_forward_hook(lambda unit, args, spikes: seen.append(spikes.detach()))
        for unit in net.units
    ]
    with torch.no_grad(), EventRate(net) as rate:
        net(x, SNN)
    for hook in hooks:
        hook.remove()
    spikes = sum(float(s.sum()) for s in seen)
    assert {s.shape[1] for s in seen} == {len(x)}
    assert rate.value == pytest.approx(spikes / sum(s.numel() for s in seen))
    assert 0 < rate.value < 1


def test_event_rate_of_another_librarys_model_by_hand():
    model = nn.Sequential(nn.Linear(1, 2, bias=False), snn.Leaky(0.5, init_hidden=True))
    model[0].weight.data = torch.tensor([[1.5], [0.0]])
    net = ss.bootstrap(model, time_steps=4)
    with torch.no_grad(), EventRate(net) as rate:
        net(torch.ones(3, 1), SNN)
    # v = 1.5 fires, 0.5 * 1.5 + 1.5 - 1 = 1.25 fires, 1.125 fires, 1.0625 fires: one of the
    # two neurons at every step.
    assert rate.value == 0.5
