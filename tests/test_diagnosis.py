import copy
import json
import math

import pytest
import snntorch
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

import spikestrap as ss
from spikestrap import Mode, SpikestrapError
from spikestrap.diagnosis import Diagnosis

IF = {"threshold": 1.0, "reset": "subtract", "v_init": 0.5}
T = 8


def network(second=None, sampler=None, time_steps=T):
    """Two units and a readout; `second` are the second one's parameters."""
    block = ss.block.integrate_fire
    second = {**IF, **(second or {}), "sampler": sampler}
    net = ss.Network(
        block.Dense(IF, 20, 50, weight_scale=4.0),
        block.Dense(second, 50, 40, weight_scale=4.0),
        block.Affine(IF, 40, 10),
        time_steps=time_steps,
    )
    return net.train()


def draw(batch=100, seed=1):
    return torch.rand(batch, 20, generator=torch.Generator().manual_seed(seed))


def fit(net, x):
    net(x, Mode.SAMPLE)
    net(x, Mode.FIT)
    return net


class Integrator(ss.neuron.Neuron):
    """Fires once its inputs have added up to 40."""

    def init_state(self, z):
        return (torch.zeros_like(z),)

    def step(self, z, state):
        total = state[0] + z
        return (total >= 40.0).to(z), (total,)


class TestNumbers:
    def test_a_foreign_loop_over_steps_is_compared_by_its_mean(self):
        class Loop(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.one = nn.Linear(20, 30), snntorch.Leaky(0.9)
                self.second, self.two = nn.Linear(30, 10), snntorch.Leaky(0.9)

            def forward(self, x):
                one, two, outputs = self.one.init_leaky(), self.two.init_leaky(), []
                for _ in range(T):
                    spikes, one = self.one(self.first(x), one)
                    spikes, two = self.two(self.second(spikes), two)
                    outputs.append(spikes)
                return torch.stack(outputs)

        x = 4 * draw()
        net = fit(ss.bootstrap(Loop(), time_steps=T), x)
        found = ss.diagnose(net, [x, x])[-1]
        assert found.rate_gap == pytest.approx(
            (net(x, Mode.ANN) - net(x)).abs().mean().item(), abs=1e-6
        )

    def test_within_ragged_padding_does_not_count(self):
        net = network(time_steps=None)
        alone = [torch.rand(steps, 1, 20) for steps in (3, 8)]
        x, lengths = ss.pad([sample[:, 0] for sample in alone])
        fit(net, x)
        with ss.ragged(lengths):
            found = ss.diagnose(net, [x])
        each = [ss.diagnose(net, [sample]) for sample in alone]
        for name in ("event_rate", "curve_gap", "rate_gap"):
            for padded, *others in zip(found, *each, strict=True):
                mean = sum(getattr(other, name) for other in others) / 2
                assert getattr(padded, name) == pytest.approx(mean, abs=1e-6)

    def test_are_those_of_the_runs(self):
        net, loader = fit(network(), draw(seed=0)), [draw(seed=1), draw(50, seed=2)]
        first, second = ss.diagnose(net, loader)
        assert (first.name, second.name) == ("blocks.0.unit", "blocks.1.unit")
        x = torch.cat(loader)
        z, curves, ann = [], [], []
        spikes = ss.hold(x, T)
        rates = x
        with torch.no_grad():
            for block in net.blocks[:2]:
                z.append(block.synapse(spikes.mean(0)))
                spikes = block(spikes, mode=Mode.SNN)
                curves.append((block.unit.sampler(z[-1]) - spikes.mean(0)).abs().mean().item())
                rates = block(rates, mode=Mode.ANN)
                ann.append((rates - spikes.mean(0)).abs().mean().item())
        rate = spikes.mean(0)
        assert second.event_rate == pytest.approx(rate.mean().item())
        assert second.dead == pytest.approx((rate.amax(0) == 0).float().mean().item())
        assert second.saturated == pytest.approx((rate.amin(0) == 1).float().mean().item())
        assert [first.curve_gap, second.curve_gap] == pytest.approx(curves, abs=1e-5)
        assert [first.rate_gap, second.rate_gap] == pytest.approx(ann, abs=1e-5)
        assert (first.samples, second.samples) == (100 * 50, 100 * 40)
        assert first.residual == net.blocks[0].unit.sampler.residual.item()
        assert first.time_steps == second.time_steps == T

    def test_a_good_network_has_no_warnings(self):
        x = draw(300)
        assert [layer.warnings for layer in ss.diagnose(fit(network(), x), [x])] == [(), ()]

    def test_looks_at_so_many_batches(self):
        net = fit(network(), draw())
        loader = iter([(draw(), None), (draw(), None), None])
        assert len(ss.diagnose(net, loader, batches=2)) == 2
        assert next(loader) is None


class TestWarnings:
    def test_dead_for_a_high_threshold(self):
        net = network({"threshold": 1e6})
        net(draw(), Mode.SAMPLE)
        first, second = ss.diagnose(net, [draw()])
        assert first.warnings == ()
        (text,) = second.warnings
        assert second.dead == 1
        assert text.startswith("dead: no input reaches the threshold within T = 8 steps (largest")
        assert text.endswith("lower the threshold or raise the weights")

    def test_dead_for_few_time_steps(self):
        net = network({"threshold": 40.0, "v_init": 0.0})
        net(draw(), Mode.SAMPLE)
        (text,) = ss.diagnose(net, [draw()])[1].warnings
        assert text.endswith("though it would in time: take more time steps, or set v_init")

    def test_only_a_neuron_that_has_one_is_to_set_its_first_value(self):
        net = ss.Network(ss.block.Dense(Integrator(), 20, 5), time_steps=4)
        net(draw(), Mode.SAMPLE)
        (text,) = ss.diagnose(net, [draw()])[0].warnings
        assert text.endswith("though it would in time: take more time steps")

    def test_saturated(self):
        net = network()
        with torch.no_grad():
            net.blocks[1].synapse.layer.weight.fill_(9.0)
        net(draw(), Mode.SAMPLE)
        second = ss.diagnose(net, [draw()])[1]
        assert (second.saturated, second.event_rate) == (1, 1)
        assert any(text.startswith("saturated: all neurons") for text in second.warnings)

    @pytest.mark.parametrize("value", [-9.0, 9.0])
    def test_most_neurons(self, value):
        net = network()
        with torch.no_grad():
            net.blocks[1].synapse.layer.weight[:24] = value
        net(draw(300), Mode.SAMPLE)
        second = ss.diagnose(net, [draw()])[1]
        share = second.dead if value < 0 else second.saturated
        assert 0.6 <= share < 0.9
        assert any("of the neurons are" in told for told in second.warnings)

    def test_too_few_samples(self):
        net = fit(network(), draw(10))
        first, second = ss.diagnose(net, [draw()])
        assert first.samples == 500
        assert not any("samples" in text for text in first.warnings)
        assert any("too few samples: 400 pairs" in text for text in second.warnings)

    def test_the_fewest_samples_of_a_channel_count(self):
        net = network(sampler={"per": "channel"})
        net(draw(200), Mode.SAMPLE)
        second = ss.diagnose(net, [draw()])[1]
        assert second.samples == 200
        assert any("too few samples: 200 pairs" in text for text in second.warnings)

    def test_never_fitted(self):
        first, second = ss.diagnose(network(), [draw()])
        assert math.isnan(first.residual)
        assert math.isnan(second.rate_gap)
        assert math.isnan(first.curve_gap)
        assert first.event_rate > 0
        assert not first.fitted
        assert first.warnings == (
            "no curve: run some batches in Mode.SAMPLE, then one in Mode.FIT",
        )

    def test_other_time_steps(self):
        net = fit(network(), draw(300))
        net.time_steps = 2
        for found in ss.diagnose(net, [draw()]):
            assert "other time steps: the curve was sampled at T = 8" in found.warnings[0]

    def test_an_outdated_curve_and_what_follows(self):
        net = fit(network(), draw(300))
        with torch.no_grad():
            net.blocks[0].synapse.layer.weight.mul_(0.9)
            net.blocks[0].unit.sampler.values.mul_(0.5)
        first, second = ss.diagnose(net, [draw()])
        assert "its curve is a bad model" in first.warnings[0]
        assert first.warnings[0].endswith("sample again")
        assert "the rest has come from the 1 units before" in second.warnings[0]

    def test_an_input_that_no_mean_describes(self):
        block = ss.block.lif
        net = ss.Network(block.Input({"threshold": 1.0, "voltage_decay": 0.9}), time_steps=None)
        # The same mean, all at once or evenly.
        x = torch.rand(8, 400, 4) * 1.2
        x[:, ::2] = torch.cat([8 * x[:1, ::2], torch.zeros(7, 200, 4)])
        fit(net, x)
        (found,) = ss.diagnose(net, [x])
        (text,) = (text for text in found.warnings if "does not tell a neuron's rate" in text)
        assert 'a curve for each channel (per="channel")' in text
        # Units of a wrapped model cannot have that.
        wrapped = ss.bootstrap(nn.Sequential(neuron.LIFNode(tau=2.0, step_mode="m"), nn.Flatten(2)))
        fit(wrapped, 2 * x)
        (found,) = ss.diagnose(wrapped, [2 * x])
        (text,) = (text for text in found.warnings if "does not tell a neuron's rate" in text)
        assert "more time steps, or cross over" in text


class Written(nn.Module):
    """A module of one's own; `one_mode` says how it takes its modes."""

    def __init__(self, one_mode):
        super().__init__()
        self.one_mode = one_mode
        self.blocks = nn.ModuleList(ss.block.integrate_fire.Dense(IF, 20, 20) for _ in range(2))

    def forward(self, x, mode):
        x = ss.hold(x, T)
        modes = [mode] * 2 if self.one_mode else mode
        for block, m in zip(self.blocks, modes, strict=False):
            x = block(x, mode=m)
        return x


@pytest.mark.parametrize("one_mode", [True, False])
def test_a_module_of_ones_own(one_mode):
    net = Written(one_mode)
    assert [found.name for found in ss.diagnose(net, [draw()])] == [
        "blocks.0.unit",
        "blocks.1.unit",
    ]


def test_calls_of_one_unit_are_compared_one_by_one():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            block = ss.block.integrate_fire.Dense
            self.first, self.again = (block(IF, 20, 20, weight_scale=4.0) for _ in range(2))

        def forward(self, x, mode=Mode.SNN):
            x = self.first(ss.hold(x, T), mode=mode)
            return self.again(self.again(x, mode=mode), mode=mode)

    net, x = fit(Twice(), draw()).eval(), draw(seed=2)
    rates = {Mode.SNN: [], Mode.ANN: []}
    for mode, seen in rates.items():
        hook = net.again.unit.register_forward_hook(
            lambda _, args, y, seen=seen: seen.append(y.mean(0) if y.ndim == 3 else y)
        )
        net(x, mode)
        hook.remove()
    gaps = [(a - b).abs().mean() for a, b in zip(*rates.values(), strict=True)]
    found = ss.diagnose(net, [x])[1]
    assert found.rate_gap == pytest.approx(torch.stack(gaps).mean().item(), rel=1e-4)


def test_a_gap_that_was_not_measured_is_no_number():
    net, x = network(), draw()
    for i in range(3):
        net(x, ss.Scheduler(num_sample_iter=1, crossover_epochs=[0]).mode(0, i))
    lower, upper = ss.diagnose(net, [x])
    assert (lower.fitted, upper.fitted) == (False, True)
    assert math.isnan(upper.rate_gap)
    assert upper.curve_gap >= 0


def test_a_wrapped_model():
    model = nn.Sequential(
        layer.Linear(20, 30), neuron.LIFNode(), layer.Linear(30, 30), neuron.IFNode()
    )
    net = ss.bootstrap(model, time_steps=T)
    net(9 * draw(), Mode.SAMPLE)
    net(9 * draw(), Mode.FIT)
    found = ss.diagnose(net, [9 * draw()])
    assert [unit.name for unit in found] == ["1", "3"]
    assert 0 < found[0].event_rate < 1
    assert 0 < found[0].rate_gap < 0.1


@pytest.mark.parametrize("step_mode", ["s", "m"])
def test_a_wrapped_model_whose_neurons_hold_the_graph_of_its_own_training(step_mode):
    model = nn.Sequential(layer.Linear(20, 30), neuron.ParametricLIFNode(), layer.Linear(30, 3))
    functional.set_step_mode(model, step_mode)
    net = ss.bootstrap(model, time_steps=T)
    net(9 * draw(), Mode.SAMPLE)
    net(9 * draw(), Mode.FIT)
    expected = ss.diagnose(net, [9 * draw()])
    model(9 * (draw() if step_mode == "s" else draw().expand(T, -1, -1))).sum().backward()
    assert ss.diagnose(net, [9 * draw()]) == expected
    assert model[1].v.grad_fn is not None  # it stays as it is


@pytest.mark.parametrize("training", [True, False])
def test_leaves_everything_as_it_is(training):
    dropping = {**IF, "dropout": 0.5, "norm": "batch"}
    net = ss.Network(ss.block.integrate_fire.Dense(dropping, 20, 50), time_steps=T)
    net(draw(), Mode.SAMPLE)
    net(draw(), Mode.FIT)
    net(draw(), Mode.SAMPLE)  # pending
    net.train(training)
    before, random = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    ss.diagnose(net, [draw()])
    assert torch.equal(torch.get_rng_state(), random)
    assert net.training is training
    assert net.blocks[0].unit.sampler.pending
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert not any(module._forward_hooks for module in net.modules())


class TestOutput:
    def test_the_share_of_inputs_that_both_give_the_same_class(self):
        net, batches = fit(network(time_steps=2), draw()), [draw(60, 2), draw(40, 3)]
        found = ss.diagnose(net, batches)
        net.eval()
        x = torch.cat(batches)
        same = net(x, Mode.SNN).argmax(1) == net(x, Mode.ANN).argmax(1)
        assert 0 < same.sum() < 100
        assert found.inputs == 100
        assert found.agreement == pytest.approx(same.double().mean().item())

    def test_help_stands_behind_a_low_share_alone(self):
        layers = ss.diagnose(fit(network(), draw()), [draw()])
        low, high = (Diagnosis(layers, 200, share) for share in (0.9, 0.99))
        *_, told = str(low).splitlines()
        assert told.startswith("output: SNN and ANN agree on the class of 90.0% of 200 inputs; ")
        *_, told = str(high).splitlines()
        assert told == "output: SNN and ANN agree on the class of 99.0% of 200 inputs"

    def test_no_share_without_curves_or_classes(self):
        class Frames(nn.Module):
            """Spikes or rates of a unit, as they are."""

            def __init__(self):
                super().__init__()
                self.block = ss.block.integrate_fire.Dense(IF, 20, 50, weight_scale=4.0)

            def forward(self, x, mode):
                return self.block(x.expand(T, *x.shape), mode)

        for net in (network(), fit(Frames(), draw())):
            found = ss.diagnose(net, [draw()])
            assert math.isnan(found.agreement)
            assert found.inputs == 0
            assert "output" not in str(found)


class TestForms:
    def test_a_table_with_its_warnings(self):
        net = network({"threshold": 1e6})
        net(draw(), Mode.SAMPLE)
        found = ss.diagnose(net, [draw()])
        lines = str(found).splitlines()
        assert lines[0].split()[:3] == ["unit", "samples", "residual"]
        assert len({len(line) for line in lines[:3]}) == 1
        assert lines[2].split()[-2:] == ["100.0%", "0.0%"]
        assert lines[3].startswith("blocks.1.unit: dead: no input")

    def test_plain_types(self):
        net = fit(network(), draw())
        found = ss.diagnose(net, [draw()])
        told = json.loads(json.dumps(found.to_dict()))
        assert list(told) == ["blocks.0.unit", "blocks.1.unit"]
        assert told["blocks.0.unit"]["event_rate"] == found[0].event_rate
        assert told["blocks.0.unit"]["warnings"] == list(found[0].warnings)


@pytest.mark.parametrize(
    ("net", "arguments", "message"),
    [
        (nn.Linear(20, 3), ([torch.ones(2, 20)],), "found no bootstrap unit in Linear"),
        (None, ([],), "expected at least one batch, the loader gave none"),
        (None, ([torch.ones(2, 20)], 0), "batches must be a whole number >= 1, got 0"),
    ],
)
def test_refuses(net, arguments, message):
    with pytest.raises(SpikestrapError, match=message):
        ss.diagnose(net or network(), *arguments)
