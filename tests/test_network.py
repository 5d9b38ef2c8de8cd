import copy
import io
import shutil
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

import spikestrap as ss
from spikestrap import LayerMode, Mode, NotFittedError, SpikestrapError, hold
from spikestrap.neuron import LIF
from spikestrap.timeaxis import has_time
from spikestrap.train.evaluate import EventRate
from spikestrap.unit import units_of

SNN, ANN, SAMPLE, FIT = Mode.SNN, Mode.ANN, Mode.SAMPLE, Mode.FIT
NEURON = {"threshold": 0.4, "voltage_decay": 0.1}
modes = pytest.mark.parametrize("mode", Mode)


def mlp(time_steps=4, **more):
    """Three units and a readout."""
    block, neuron = ss.block.lif, {**NEURON, **more}
    return ss.Network(
        block.Input(NEURON, 1.2, 0.1),
        block.Dense(neuron, 6, 12, weight_norm=True, weight_scale=2.0),
        block.Dense(neuron, 12, 8, weight_scale=3.0),
        block.Affine(None, 8, 3),
        time_steps=time_steps,
    )


def cnn(time_steps=4):
    """Three units with blocks without one in between."""
    block, neuron = ss.block.cuba, {"threshold": 0.4, "current_decay": 0.6, "norm": "batch"}
    return ss.Network(
        block.Conv(neuron, 2, 4, 3, padding=1, weight_scale=2.0),
        ss.block.AvgPool(2),
        block.Conv(neuron, 4, 4, 3, padding=1, groups=2, weight_scale=3.0),
        ss.block.Dropout(0.2),
        ss.block.Flatten(),
        block.Dense(neuron, 36, 8, weight_scale=3.0),
        block.Affine(neuron, 8, 3),
        time_steps=time_steps,
    )


NETWORKS = {"mlp": (mlp, (6,)), "cnn": (cnn, (2, 6, 6))}
every = pytest.mark.parametrize(("make", "features"), NETWORKS.values(), ids=list(NETWORKS))


def draw(features, batch=20, seed=0):
    return torch.rand(batch, *features, generator=torch.Generator().manual_seed(seed))


def fit(net, x):
    net(x, SAMPLE)
    net(x, FIT)
    return net


class TestModes:
    @every
    @modes
    def test_logits(self, make, features, mode):
        x = draw(features)
        logits = fit(make(), x)(x, mode)
        assert logits.shape == (20, 3)
        assert torch.isfinite(logits).all()

    @every
    @pytest.mark.parametrize("crossover", [0, 1, 2, 3, 9])
    def test_one_a_unit_in_every_form(self, make, features, crossover):
        x = draw(features)
        net = fit(make(), x).eval()
        listed = [SNN] * min(crossover, 3) + [ANN] * max(3 - crossover, 0)
        expected = net(x, LayerMode(ANN, crossover))
        assert torch.equal(net(x, listed), expected)
        assert torch.equal(net(x, tuple(listed)), expected)
        if crossover == 0:
            assert torch.equal(net(x, ANN), expected)
        if crossover >= 3:
            assert torch.equal(net(x, SNN), expected)
            assert torch.equal(net(x), expected)

    @every
    def test_is_its_blocks_in_a_row(self, make, features):
        x = draw(features)
        net = fit(make(), x).eval()
        for mode, crossover in ((SNN, 0), (ANN, 0), (ANN, 1), (ANN, 2), (SAMPLE, 1), (FIT, 2)):
            modes = LayerMode(mode, crossover)
            twin = copy.deepcopy(net)
            y, left = hold(x, 4), list(modes_of(modes, 3))
            for block in twin.blocks:
                has_unit = hasattr(block, "unit")
                y = block(y, mode=left.pop(0)) if has_unit else block(y)
            y = y.mean(0) if has_time(y) else y
            torch.testing.assert_close(net(x, modes), y)

    def test_a_forward_of_ones_own(self):
        class Residual(nn.Module):
            def __init__(self):
                super().__init__()
                self.blocks = nn.ModuleList(ss.block.lif.Dense(NEURON, 6, 6) for _ in range(3))
                self.add = ss.block.Add()
                self.readout = ss.block.Affine(None, 6, 3)

            def forward(self, x, mode):
                x = hold(x, 4)
                for block, m in zip(self.blocks, mode, strict=False):
                    x = self.add(block(x, mode=m), x)
                return self.readout(x)

        net, x = Residual(), draw((6,))
        scheduler = ss.Scheduler(2, 3, crossover_epochs=[1, 2])
        for epoch in range(4):
            for iteration in range(4):
                logits = net(x, scheduler.mode(epoch, iteration))
                assert logits.shape == (20, 3)
        assert net(x, scheduler.mode(0, 0, train=False)).shape == (20, 3)
        assert [b.unit.sampler.fitted.item() for b in net.blocks] == [1, 1, 2]

    @pytest.mark.parametrize(
        ("mode", "message"),
        [
            ([SNN], "expected 3 modes, one a unit, got 1"),
            ([SNN] * 4, "expected 3 modes, one a unit, got 4"),
            ([], "expected 3 modes, one a unit, got 0"),
            ([SNN, SNN, "ann"], r"one of Mode\.SNN, .* got 'ann'"),
            ("snn", r"one of Mode\.SNN, .* got 'snn'"),
            (None, r"one of Mode\.SNN, .* got None"),
            (1, r"one of Mode\.SNN, .* got 1"),
        ],
    )
    def test_refuses(self, mode, message):
        with pytest.raises(SpikestrapError, match=message):
            mlp()(draw((6,)), mode)


def modes_of(modes, units):
    return [mode for mode, _ in zip(modes, range(units), strict=False)]


class TestCrossover:
    @every
    @pytest.mark.parametrize("base", [SAMPLE, FIT, ANN])
    @pytest.mark.parametrize("crossover", [1, 2, 3])
    def test_units_below_are_neither_sampled_nor_fitted(self, make, features, base, crossover):
        x = draw(features)
        net = fit(make(), x)
        samplers = [unit.sampler for _, unit in ss.unit.units_of(net)]
        before = copy.deepcopy([s.state_dict() for s in samplers])
        net(2 * x, LayerMode(base, crossover))
        for number, (sampler, old) in enumerate(zip(samplers, before, strict=True)):
            same = all(torch.equal(b, old[name]) for name, b in sampler.state_dict().items())
            assert same == (number < crossover or base is ANN)

    def test_unfitted_units_below_do_no_harm(self):
        net, x = mlp(), draw((6,))
        net(x, LayerMode(SAMPLE, 2))
        assert net(x, LayerMode(FIT, 2)).shape == (20, 3)
        assert net(x, LayerMode(ANN, 2)).shape == (20, 3)
        with pytest.raises(NotFittedError, match="block 0"):
            net(x, ANN)

    @every
    @pytest.mark.parametrize("crossover", [0, 1, 2])
    def test_time_is_averaged_before_the_first_ann_synapse(self, make, features, crossover):
        x = draw(features)
        net = fit(make(), x).eval()
        blocks = [block for block in net.blocks if hasattr(block, "unit")]
        got, fed = {}, {}
        for number, block in enumerate(blocks):
            block.register_forward_pre_hook(lambda _, args, n=number: fed.update({n: args[0]}))
            block.synapse.register_forward_pre_hook(
                lambda _, args, n=number: got.update({n: args[0]})
            )
        net(x, LayerMode(ANN, crossover))
        for number in range(3):
            assert has_time(got[number]) == (number < crossover)
        assert has_time(fed[crossover])
        torch.testing.assert_close(got[crossover], fed[crossover].mean(0))

    @every
    def test_gradients_reach_every_parameter(self, make, features):
        x, y = draw(features), torch.randint(0, 3, (20,))
        net = fit(make(), x)
        for crossover in range(4):
            for base in (SAMPLE, FIT, ANN):
                net.zero_grad()
                F.cross_entropy(net(x, LayerMode(base, crossover)), y).backward()
                for name, p in net.named_parameters():
                    assert p.grad is not None, (name, base, crossover)
                    assert torch.isfinite(p.grad).all()
                    assert (p.grad != 0).any(), (name, base, crossover)

    @pytest.mark.parametrize("mode", [SNN, LayerMode(ANN, 1), LayerMode(ANN, 2)])
    def test_gradients_reach_learnable_neurons_that_spike(self, mode):
        net = mlp(learnable=("threshold", "voltage_decay"))
        x = draw((6,))
        fit(net, x)(x, mode).square().sum().backward()
        crossover = mode.crossover if isinstance(mode, LayerMode) else 3
        for number, block in enumerate(list(net.blocks)[1:3], start=1):
            reached = block.unit.neuron.threshold.grad is not None
            assert reached == (number < crossover)


class TestTime:
    @every
    def test_static_is_the_repeated_temporal(self, make, features):
        static, temporal = make(time_steps=4).eval(), make(time_steps=None).eval()
        temporal.load_state_dict(static.state_dict())
        x = draw(features)
        for mode in (SAMPLE, FIT, ANN, SNN, LayerMode(ANN, 1)):
            held = temporal(hold(x, 4), mode)
            torch.testing.assert_close(static(x, mode), held)
            # Of a copy, sums may be taken in another order: a rare spike may differ.
            repeated = copy.deepcopy(temporal)(hold(x, 4).clone(), mode)
            assert (repeated - held).abs().mean() < 0.02

    def test_static_computes_its_first_synapse_once(self):
        net, seen = cnn(time_steps=16), []
        net.blocks[0].synapse.layer.register_forward_pre_hook(
            lambda _, args: seen.append(args[0].shape[0])
        )
        net(draw((2, 6, 6)), SNN)
        assert seen == [20]

    def test_temporal_sees_the_order(self):
        net = mlp(time_steps=None)
        x = torch.zeros(8, 20, 6)
        x[0] = 2 * draw((6,))
        assert not torch.equal(net(x), net(x.flip(0)))

    @every
    def test_nothing_is_carried_into_the_next_batch(self, make, features):
        net, x = make().eval(), draw(features)
        first = net(x)
        net(draw(features, batch=7, seed=5) * 3)
        assert torch.equal(net(x), first)

    def test_time_steps_can_be_changed(self):
        net, x = mlp(time_steps=4), draw((6,))
        net.time_steps = 9
        seen = []
        net.blocks[0].register_forward_hook(lambda _, args, out: seen.append(out.shape[0]))
        net(x)
        assert seen == [9]

    @pytest.mark.parametrize("time_steps", [0, -1, 2.0, "4"])
    def test_refuses_time_steps(self, time_steps):
        with pytest.raises(SpikestrapError, match="None or a whole number >= 1, got"):
            mlp(time_steps=time_steps)
        net = mlp()
        with pytest.raises(SpikestrapError, match="None or a whole number >= 1, got"):
            net.time_steps = time_steps
        assert net.time_steps == 4

    def test_one_step(self):
        net, x = mlp(time_steps=1), draw((6,), batch=60)
        fit(net, x)
        for mode in Mode:
            assert net(x, mode).shape == (60, 3)


class TestInputs:
    @pytest.mark.parametrize(
        ("time_steps", "x", "message"),
        [
            (4, torch.rand(4, 5, 6), r"time_steps=4 expected an input \(N, C\) or .*\(4, 5, 6\)"),
            (4, torch.rand(6), r"got shape \(6,\)"),
            (4, torch.rand(4, 5, 2, 6, 6), r"got shape \(4, 5, 2, 6, 6\)"),
            (None, torch.rand(5, 6), r"time_steps=None expected an input \(T, N, C\).*\(5, 6\)"),
            (None, torch.rand(0, 5, 6), r"empty, shape \(0, 5, 6\)"),
            (4, torch.rand(0, 6), r"empty, shape \(0, 6\)"),
            (4, torch.zeros(5, 6, dtype=torch.uint8), r"torch.uint8.*x.float\(\) / 255"),
            (4, torch.zeros(5, 6, dtype=torch.int64), "expected a floating-point input, got"),
            (4, torch.full((5, 6), float("nan")), "NaN or inf"),
            (4, torch.full((5, 6), float("inf")), "NaN or inf"),
            (4, torch.tensor([[float("inf"), -float("inf")]]).repeat(5, 3), "NaN or inf"),
        ],
    )
    def test_refuses_and_says_what_came(self, time_steps, x, message):
        with pytest.raises(SpikestrapError, match=message):
            mlp(time_steps)(x)

    def test_large_but_finite_is_fine(self):
        x = torch.full((5, 6), 3e38)
        assert not torch.isfinite(x.sum())
        assert mlp()(x).shape == (5, 3)

    @every
    def test_wrong_features_say_which_block(self, make, features):
        number, wanted = (1, 6) if make is mlp else (0, 2)
        wrong = draw((features[0] + 1, *features[1:]))
        with pytest.raises(SpikestrapError, match=f"block {number} .*with C = {wanted}, got shape"):
            make()(wrong)

    def test_an_error_keeps_its_type_and_says_which_block(self):
        with pytest.raises(NotFittedError, match=r"block 0 \(Input\): .*Mode\.SAMPLE"):
            mlp()(draw((6,)), ANN)
        with pytest.raises(NotFittedError, match=r"block 0 \(Input\): nothing to fit"):
            mlp()(draw((6,)), FIT)

    def test_needs_a_block(self):
        with pytest.raises(SpikestrapError, match="at least one block, got none"):
            ss.Network()

    def test_a_layer_of_torch_is_named(self):
        with pytest.raises(SpikestrapError, match=r"block 1 is a Linear, which takes no mode"):
            ss.Network(ss.block.cuba.Dense({"threshold": 1.0}, 6, 4), nn.Linear(4, 2))
        with pytest.raises(SpikestrapError, match=r"one after the other, got a list"):
            ss.Network([ss.block.cuba.Dense({"threshold": 1.0}, 6, 4)])

    @every
    @modes
    def test_input_is_left_alone(self, make, features, mode):
        x = draw(features)
        net, before = fit(make(), x), x.clone()
        net(x, mode)
        assert torch.equal(x, before)


class TestCountLog:
    def test_adds_the_rates_of_the_blocks_that_count(self):
        block = ss.block.lif
        net = ss.Network(
            block.Dense(NEURON, 6, 12, weight_scale=2.0, count_log=True),
            block.Dense(NEURON, 12, 8, weight_scale=3.0),
            block.Dense(NEURON, 8, 8, weight_scale=3.0, count_log=True),
            block.Affine(None, 8, 3),
            time_steps=4,
        )
        x, spikes = draw((6,)), []
        for number in (0, 2):
            net.blocks[number].unit.register_forward_hook(lambda _, args, out: spikes.append(out))
        for mode in (SAMPLE, FIT, ANN, SNN, LayerMode(ANN, 1)):
            spikes.clear()
            logits, rates = net(x, mode)
            assert logits.shape == (20, 3)
            means = [s.mean().item() for s in spikes]
            assert [r.item() for r in rates] == pytest.approx(means)


@st.composite
def networks(draw_from):
    """A function that makes one network, the same up to its weights."""
    kind = draw_from(st.sampled_from(["lif", "cuba", "integrate_fire"]))
    channel = st.sampled_from([None, "channel"])
    decays = {"lif": {"voltage_decay": 0.2}, "cuba": {"current_decay": 0.5}}.get(kind, {})
    neuron = {
        "threshold": 0.3,
        **decays,
        "reset": draw_from(st.sampled_from(["zero", "subtract"])),
        "learnable": draw_from(st.sampled_from([(), ("threshold",), ("v_init", "threshold")])),
        "norm": draw_from(st.sampled_from([None, "batch", "mean_only"])),
        "sampler": {
            "slope": draw_from(st.sampled_from(["smooth", "fit", "rescaled"])),
            "rounding": draw_from(st.booleans()),
            "memory": draw_from(st.sampled_from([0.0, 0.5])),
            **({"per": "channel"} if draw_from(channel) else {}),
        },
    }
    if neuron["norm"] is None:
        del neuron["norm"]
    options = {"weight_norm": draw_from(st.booleans()), "bias": draw_from(st.booleans())}
    time_steps = draw_from(st.integers(1, 5))
    conv = draw_from(st.booleans())

    def make():
        block = getattr(ss.block, kind)
        if conv:
            layers = [
                block.Conv(neuron, 2, 3, 3, **options),
                ss.block.AvgPool(2),
                ss.block.Flatten(),
                block.Dense(neuron, 12, 8, **options),
            ]
        else:
            layers = [block.Dense(neuron, 6, 8, **options), block.Dense(neuron, 8, 8, **options)]
        return ss.Network(*layers, block.Affine(None, 8, 3), time_steps=time_steps)

    return make, (2, 6, 6) if conv else (6,)


class TestKeeping:
    @given(networks(), st.integers(0, 1000), st.sampled_from([(), (SAMPLE,), (SAMPLE, FIT)]))
    @settings(max_examples=12)
    @pytest.mark.filterwarnings("ignore::spikestrap.SpikestrapWarning")
    def test_a_fresh_network_that_loads_is_the_same_to_the_bit(self, made, seed, before):
        make, features = made
        torch.manual_seed(seed)
        net, fresh = make(), make()
        with torch.no_grad():
            for p in net.parameters():
                p.mul_(1 + torch.rand_like(p))
        for mode in before:
            net(draw(features, seed=seed), mode)
        file = io.BytesIO()
        torch.save(net.state_dict(), file)
        file.seek(0)
        fresh.load_state_dict(torch.load(file, weights_only=True))
        x = draw(features, seed=seed + 1)
        for mode in ((ANN,) if FIT in before else ()) + (SNN, SAMPLE, FIT, ANN, LayerMode(ANN, 1)):
            assert torch.equal(fresh(x, mode), net(x, mode))
        for name, value in fresh.state_dict().items():
            assert torch.equal(value, net.state_dict()[name])

    @every
    def test_deep_copies_are_apart(self, make, features):
        x = draw(features)
        net = fit(make(), x).eval()
        expected = {mode: net(x, mode) for mode in (SNN, ANN)}
        twin = copy.deepcopy(net)
        for mode, logits in expected.items():
            assert torch.equal(twin(x, mode), logits)
        with torch.no_grad():
            for p in twin.parameters():
                p.add_(0.1)
        fit(twin, 3 * x)
        for mode, logits in expected.items():
            assert torch.equal(net(x, mode), logits)

    @every
    def test_the_shapes_are_final_at_construction(self, make, features):
        net = make()
        before = {name: value.shape for name, value in net.state_dict().items()}
        x = draw(features)
        fit(net, x)(x, ANN)
        assert {name: value.shape for name, value in net.state_dict().items()} == before

    @every
    def test_evaluation_changes_nothing(self, make, features):
        x = draw(features)
        net = fit(make(), x).eval()
        before = copy.deepcopy(net.state_dict())
        for mode in (SNN, ANN, LayerMode(ANN, 1)):
            net(x, mode)
        for name, value in net.state_dict().items():
            assert torch.equal(value, before[name]), name


class TestTraining:
    def test_the_rates_of_ann_mode_are_those_of_the_snn(self):
        """Reset by subtraction from half a threshold: the curve is exact up to rare steps."""
        block = ss.block.integrate_fire
        neuron = {"threshold": 1.0, "reset": "subtract", "v_init": 0.5}
        net = ss.Network(
            block.Dense(neuron, 6, 50, weight_scale=2.0),
            block.Affine(None, 50, 3),
            time_steps=4,
        )
        x = draw((6,), batch=400)
        fit(net, x)
        assert (net(x, ANN) - net(x, SNN)).abs().mean() < 0.01

    @pytest.mark.parametrize("crossover", [None, [2, 3]])
    def test_learns_under_a_schedule(self, crossover):
        block = ss.block.integrate_fire
        neuron = {"threshold": 1.0, "reset": "subtract", "v_init": 0.5}
        net = ss.Network(
            block.Dense(neuron, 6, 24, weight_scale=2.0),
            block.Dense(neuron, 24, 24, weight_scale=2.0),
            block.Affine(None, 24, 2),
            time_steps=4,
        )
        x = draw((6,), batch=300)
        y = (x[:, 0] > x[:, 1]).long()
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
        scheduler = ss.Scheduler(1, 2, crossover_epochs=crossover)
        for epoch in range(6):
            for i, (a, b) in enumerate(zip(x.split(30), y.split(30), strict=True)):
                loss = F.cross_entropy(net(a, scheduler.mode(epoch, i)), b)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        accuracy = (net(x, SNN).argmax(1) == y).float().mean()
        assert accuracy > 0.9

    def test_a_loader_shorter_than_the_sampling_still_fits(self):
        net, x = mlp(), draw((6,))
        scheduler = ss.Scheduler(num_sample_iter=10, sample_period=5)
        for epoch in range(2):
            for i in range(3):
                assert net(x, scheduler.mode(epoch, i)).shape == (20, 3)
        assert all(unit.sampler.fitted == 1 for _, unit in ss.unit.units_of(net))

    def test_a_silent_network_warns_and_trains_on(self):
        neuron = {**NEURON, "threshold": 50.0}
        net = ss.Network(
            ss.block.lif.Dense(neuron, 6, 8), ss.block.lif.Affine(None, 8, 3), time_steps=4
        )
        x = draw((6,))
        net(x, SAMPLE)
        with pytest.warns(ss.SpikestrapWarning, match="never spiked"):
            logits = net(x, FIT)
        logits.square().sum().backward()
        assert (net.blocks[0].synapse.layer.weight.grad != 0).any()

    @pytest.mark.filterwarnings("ignore:layer")
    def test_layers_that_are_silent_at_first_learn_from_one_sampling(self):
        torch.manual_seed(0)
        x, y = load_digits(return_X_y=True)
        x, y = torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)
        neuron = {"threshold": 1.0, "voltage_decay": 0.0, "reset": "zero"}
        layers = [
            ss.block.cuba.Dense(neuron, *sizes, bias=True)
            for sizes in ((64, 96), (96, 96), (96, 96), (96, 10))
        ]
        net = ss.Network(*layers, time_steps=4)
        optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
        net(x[:128], SAMPLE)
        net(x[:128], FIT)
        assert (net(x) == 0).all()
        for _ in range(5):
            for batch in torch.randperm(1300).split(64):
                optimizer.zero_grad()
                F.cross_entropy(4 * net(x[batch], ANN), y[batch]).backward()
                optimizer.step()
        assert (net(x[1300:]).argmax(1) == y[1300:]).float().mean() > 0.6

    @pytest.mark.filterwarnings("ignore:layer")
    def test_gradients_do_not_multiply_from_one_silent_layer_to_the_next(self):
        silent = {**NEURON, "threshold": 50.0, "norm": None}
        layers = [ss.block.lif.Dense(silent, 6, 6) for _ in range(4)]
        net, x = ss.Network(*layers, time_steps=2), draw((6,))
        for mode in (SAMPLE, FIT):
            logits = net(x, mode)
        logits.sum().backward()
        assert all(layer.synapse.weight.grad.norm() < 10 for layer in layers)

    def test_a_diverged_network_says_so(self):
        net, x = mlp(), draw((6,))
        with torch.no_grad():
            net.blocks[2].synapse.weight[0, 0] = float("nan")
        with pytest.raises(SpikestrapError, match=r"block 2 \(Dense\): .*NaN or inf"):
            net(x, SAMPLE)

    @pytest.mark.parametrize("backend", ["reference", "fused"])
    def test_backends_train_alike(self, backend):
        net = mlp(time_steps=4)
        x, y = draw((6,)), torch.randint(0, 3, (20,))
        with ss.use_backend(backend):
            F.cross_entropy(net(x, SNN), y).backward()
        twin = copy.deepcopy(net)
        twin.zero_grad()
        F.cross_entropy(twin(x, SNN), y).backward()
        for p, q in zip(net.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-6)


class TestFloatingPoint:
    def test_float64(self):
        net, x = mlp().double(), draw((6,)).double()
        fit(net, x)
        for mode in Mode:
            logits = net(x, mode)
            assert logits.dtype is torch.float64
            logits.sum().backward()

    @every
    def test_autocast_is_close(self, make, features):
        net, x = make().eval(), draw(features, batch=100)
        fit(net, x)
        for mode in (SNN, ANN, LayerMode(ANN, 1)):
            exact = net(x, mode)
            with torch.autocast("cpu", torch.bfloat16):
                logits = net(x, mode)
            assert (logits.float() - exact).abs().mean() < 0.1

    @every
    def test_autocast_trains_in_every_mode(self, make, features):
        net, x = make(), draw(features)
        for mode in (SAMPLE, FIT, ANN, SNN, LayerMode(ANN, 1)):
            net.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                logits = net(x, mode)
            logits.float().square().sum().backward()
            assert all(torch.isfinite(p.grad).all() for p in net.parameters())
        for name, value in net.state_dict().items():
            assert value.dtype in (torch.float32, torch.float64, torch.int64), name


class TestCompiling:
    @every
    @pytest.mark.parametrize("mode", [SNN, ANN, LayerMode(ANN, 1)], ids=str)
    def test_is_one_graph_and_the_same(self, make, features, mode, fresh_compiler):
        x = draw(features)
        net = fit(make(), x).eval()
        compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
        outs = []
        for call in (net, compiled):
            net.zero_grad()
            logits = call(x, mode)
            logits.square().sum().backward()
            outs.append([logits, *(p.grad for p in net.parameters())])
        for eager, graph in zip(*outs, strict=True):
            torch.testing.assert_close(eager, graph)

    @pytest.mark.slow
    @pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
    def test_with_inductor(self, fresh_compiler):
        x = draw((6,))
        net = fit(mlp(), x)
        compiled = torch.compile(net, fullgraph=True)
        for mode in (ANN, SNN):
            expected = net(x, mode)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                torch.testing.assert_close(compiled(x, mode), expected)

    def test_follows_a_new_fit_without_compiling_again(self, fresh_compiler):
        compilations = []

        def backend(graph, inputs):
            compilations.append(graph)
            return graph.forward

        x = draw((6,))
        net = fit(mlp(), x).eval()
        compiled = torch.compile(net, fullgraph=True, backend=backend)
        for scale in (1, 3, 0.5, 2):
            fit(net, scale * x)
            assert torch.equal(compiled(x, ANN), net(x, ANN))
        assert len(compilations) == 1


def test_blocks_may_be_any_module_that_takes_a_mode():
    class Twice(nn.Module):
        def forward(self, x, mode=SNN):
            return 2 * x

    neuron = LIF(**NEURON)
    net = ss.Network(Twice(), ss.block.Dense(neuron, 6, 8), Twice(), time_steps=4)
    x = draw((6,))
    assert torch.equal(net(x), 2 * net.blocks[1](hold(2 * x, 4)).mean(0))


def test_a_unit_put_in_later_is_named_as_the_others():
    net = mlp()
    net.blocks[1] = ss.block.lif.Dense(NEURON, 6, 12)
    net(draw((6,)))
    assert [unit.sampler.name for _, unit in units_of(net)] == [
        "blocks.0.unit", "blocks.1.unit", "blocks.2.unit"
    ]  # fmt: skip


def _of_sixteenths(net):
    """Weights, and what norms add, in sixteenths: sums are exact in any order, to the bit."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_((16 * parameter).round() / 16)
        for module in net.modules():
            if isinstance(module, ss.norm.Norm):
                module.eps = 0.0
                module.running_mean.copy_(torch.randint(-4, 4, module.running_mean.shape) / 16)
    return net.eval()


def _without_rounding(neuron):
    """A rate on the edge between two steps would turn a last bit of its input into a whole one."""
    return {**neuron, "sampler": {"rounding": False}}


def _events():
    block, neuron = ss.block.cuba, {"threshold": 0.4, "current_decay": 0.6, "norm": "batch"}
    neuron = _without_rounding(neuron)
    net = ss.Network(
        block.Conv(neuron, 2, 4, 3, padding=1, weight_scale=2.0, count_log=True),
        ss.block.AvgPool(2),
        ss.block.Residual(block.Conv, neuron, 4, 6),
        ss.block.Flatten(),
        block.Dense(neuron, 54, 8, weight_scale=3.0),
    )
    return _of_sixteenths(net)


def _recurrent():
    block = ss.block.lif
    net = ss.Network(
        block.Recurrent(NEURON, 6, 12, weight_scale=2.0, delay=2),
        ss.block.Delay(12, 3, initial=1.0),
        block.Dense({**NEURON, "norm": "mean_only"}, 12, 8, weight_scale=3.0, delay_shift=True),
    )
    return _of_sixteenths(net)


def _ragged(features, lengths, seed):
    """Samples of such lengths, and the same padded with what must not count."""
    generator = torch.Generator().manual_seed(seed)
    alone = [torch.randint(3, (n, *features), generator=generator).float() for n in lengths]
    x, found = ss.pad(alone)
    noise = torch.randint(3, x.shape, generator=generator).float()
    padding = (torch.arange(len(x))[:, None] >= found).view(*x.shape[:2], *[1] * len(features))
    return alone, torch.where(padding, noise, x), found


def _logits(output):
    return output[0] if isinstance(output, tuple) else output


class TestLengths:
    """What is padded gives what each sequence gives alone."""

    lengths = st.lists(st.integers(1, 12), min_size=1, max_size=4)
    seeds = st.integers(0, 99)

    @pytest.mark.parametrize(
        ("make", "features"), [(_events, (2, 6, 6)), (_recurrent, (6,))], ids=["conv", "recurrent"]
    )
    @settings(max_examples=15)
    @given(lengths=lengths, seed=seeds)
    def test_logits_as_an_snn_to_the_bit(self, make, features, lengths, seed):
        torch.manual_seed(seed)
        net = make()
        alone, x, found = _ragged(features, lengths, seed)
        with torch.no_grad():
            logits = _logits(net(x, SNN, lengths=found))
            for n, sample in enumerate(alone):
                assert torch.equal(logits[n], _logits(net(sample[:, None], SNN))[0])

    @settings(max_examples=15)
    @given(lengths=lengths, seed=seeds, crossover=st.integers(0, 4))
    def test_logits_across_the_crossover(self, lengths, seed, crossover):
        torch.manual_seed(seed)
        net = _events()
        alone, x, found = _ragged((2, 6, 6), [*lengths, 12, 9], seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ss.SpikestrapWarning)
            net(x, SAMPLE, lengths=found)
            net(x, FIT, lengths=found)
        mode = LayerMode(ANN, crossover)
        with torch.no_grad():
            logits = _logits(net(x, mode, lengths=found))
            for n, sample in enumerate(alone):
                torch.testing.assert_close(logits[n], _logits(net(sample[:, None], mode))[0])

    @settings(max_examples=15)
    @given(lengths=lengths, seed=seeds)
    def test_statistics(self, lengths, seed):
        torch.manual_seed(seed)
        net = _events()
        alone, x, found = _ragged((2, 6, 6), lengths, seed)
        twin = copy.deepcopy(net)
        net(x, SAMPLE, lengths=found)
        expected = [torch.zeros_like(unit.sampler.statistics.pairs) for _, unit in units_of(net)]
        for sample in alone:
            for _, unit in units_of(twin):
                unit.sampler.clear()
            twin(sample[:, None], SAMPLE)
            for total, (_, unit) in zip(expected, units_of(twin), strict=True):
                total += unit.sampler.statistics.pairs
        for total, (_, unit) in zip(expected, units_of(net), strict=True):
            assert torch.equal(unit.sampler.statistics.pairs[:, 0], total[:, 0])
            torch.testing.assert_close(unit.sampler.statistics.pairs, total)
            assert unit.sampler.time_steps == max(lengths)

    def test_batches_of_other_lengths_are_sampled_together(self):
        net = _events()
        for number, lengths in enumerate(([3, 5], [7, 2], [1, 1])):
            _, x, found = _ragged((2, 6, 6), lengths, number)
            net(x, SAMPLE, lengths=found)
        sampler = net.blocks[0].unit.sampler
        assert (sampler.time_steps, sampler.count) == (7, 6 * 4 * 36)
        net(x, FIT, lengths=found)
        _, x, found = _ragged((2, 6, 6), [2, 4], 0)
        net(x, SAMPLE, lengths=found)
        assert (sampler.time_steps, sampler.count) == (4, 2 * 4 * 36)

    @pytest.mark.parametrize("mode", [SNN, ANN])
    def test_gradients_add_up(self, mode):
        alone, x, found = _ragged((2, 6, 6), [3, 8, 5], 0)
        net = _events()
        net(x, SAMPLE, lengths=found)
        net(x, FIT, lengths=found)
        _logits(net(x, mode, lengths=found)).square().sum().backward()
        padded = [p.grad for p in net.parameters()]
        net.zero_grad()
        sum(_logits(net(s[:, None], mode)).square().sum() for s in alone).backward()
        for one, other in zip(padded, net.parameters(), strict=True):
            torch.testing.assert_close(one, other.grad)

    @modes
    @pytest.mark.parametrize("precision", ["float", "loihi"])
    def test_statistics_of_norms(self, mode, precision):
        """Worked from the samples' means: of z, and so of weights times the input's mean."""
        block = ss.block.cuba.Dense({"threshold": 0.4, "norm": "batch"}, 6, 5)
        net = ss.Network(block, precision=precision)
        alone, x, found = _ragged((6,), [3, 8, 5, 1], 0)
        net.eval()
        net(x, SAMPLE, lengths=found)
        net(x, FIT, lengths=found)
        net.train()
        means = torch.stack([sample.mean(0) for sample in alone]) @ block.synapse.weight.T
        net(x, mode, lengths=found)
        torch.testing.assert_close(block.norm.running_mean, 0.1 * means.mean(0))
        torch.testing.assert_close(block.norm.running_var, 0.9 + 0.1 * means.var(0))

    def test_event_rates_are_those_of_valid_steps(self):
        net = _events()
        alone, x, found = _ragged((2, 6, 6), [3, 8, 5], 0)
        with EventRate(net) as rate:
            _, (counted,) = net(x, SNN, lengths=found)
        with EventRate(net) as expected:
            rates = [net(sample[:, None], SNN)[1][0] for sample in alone]
        assert rate.counts == expected.counts
        assert counted.item() == pytest.approx(
            sum(r.item() * len(s) for r, s in zip(rates, alone, strict=True)) / 16
        )

    def test_a_readout_reads_valid_steps(self):
        net = ss.Network(*mlp(None).blocks)
        alone, x, found = _ragged((6,), [3, 8, 5], 0)
        logits = net(x, SNN, lengths=found)
        for n, sample in enumerate(alone):
            torch.testing.assert_close(logits[n], net(sample[:, None], SNN)[0])

    @pytest.mark.parametrize("mode", [SNN, ANN, LayerMode(ANN, 1)], ids=str)
    def test_is_one_graph(self, mode, fresh_compiler):
        _, x, found = _ragged((6,), [3, 8, 5], 0)
        net = mlp(None)
        net(x, SAMPLE, lengths=found)
        net(x, FIT, lengths=found)
        compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
        for lengths in (found, found.flip(0), None):
            expected = net(x, mode, lengths=lengths)
            torch.testing.assert_close(compiled(x, mode, lengths=lengths), expected)

    @pytest.mark.parametrize(
        ("steps", "lengths", "message"),
        [
            (None, torch.tensor([4, 9]), "lengths: expected at most T = 8 steps, got 9"),
            (None, torch.tensor([4, 0]), "lengths: expected at least 1 step each, got 0"),
            (None, [4, 8], r"lengths: expected a tensor \(N,\), got list"),
            (None, torch.tensor([4]), "one for each of the 2 samples"),
            (4, torch.tensor([4, 4]), "lengths are for inputs that have time, with time_steps=No"),
        ],
    )
    def test_lengths_that_do_not_fit(self, steps, lengths, message):
        x = torch.rand(2, 6) if steps else torch.rand(8, 2, 6)
        with pytest.raises(SpikestrapError, match=message):
            mlp(steps)(x, SNN, lengths=lengths)


def test_an_array_is_no_tensor():
    with pytest.raises(SpikestrapError, match=r"got ndarray; torch\.from_numpy makes one"):
        mlp()(np.zeros((5, 6), np.float32))
    with pytest.raises(SpikestrapError, match=r"got ndarray; torch\.from_numpy makes one"):
        mlp().freeze()(np.zeros((5, 6), np.float32))
    with pytest.raises(SpikestrapError, match="hold: expected a tensor, got ndarray"):
        hold(np.zeros((5, 6), np.float32), 4)
    with pytest.raises(SpikestrapError, match="LIF: expected a tensor z, got ndarray"):
        LIF(threshold=1.0, voltage_decay=0.1)(np.zeros((4, 5, 6), np.float32))


def test_an_input_of_another_precision_than_the_weights_is_refused():
    net = ss.Network(ss.block.lif.Dense(NEURON, 6, 4), time_steps=4)
    x = torch.rand(3, 6, dtype=torch.float64)
    message = r"block 0 \(Dense\): expected an input of torch.float32, .* got torch.float64"
    with pytest.raises(SpikestrapError, match=message):
        net(x)
    assert net.double()(x).dtype is torch.float64
    with pytest.raises(SpikestrapError, match=r"torch.float64, .* got torch.float32"):
        net(x.float())


def test_what_torch_refuses_for_other_reasons_stays_as_torch_says_it():
    pool = ss.block.lif.Pool({**NEURON, "learnable": ("threshold",)}, 8)
    net = ss.Network(pool, time_steps=2).bfloat16()
    with pytest.raises(RuntimeError, match="Output size is too small"):
        net(torch.rand(3, 1, 4, 4, dtype=torch.bfloat16))
    net = ss.Network(ss.block.lif.Dense(NEURON, 6, 4), time_steps=2).bfloat16()
    net.blocks[0].register_forward_pre_hook(out_of_memory)
    with pytest.raises(torch.OutOfMemoryError, match="of memory"):
        net(torch.rand(3, 6))


def out_of_memory(*_):
    raise torch.OutOfMemoryError("out of memory")
