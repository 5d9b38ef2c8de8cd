import copy
import inspect
import io
import pickle
from types import MappingProxyType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import spikestrap as ss
from spikestrap import Mode, NotFittedError, SpikestrapError, hold
from spikestrap.block import bind
from spikestrap.neuron import CUBA, IF, LIF, Neuron
from spikestrap.norm import BatchNorm, MeanOnlyNorm

SNN, ANN, SAMPLE, FIT = Mode.SNN, Mode.ANN, Mode.SAMPLE, Mode.FIT
NEURON = MappingProxyType({"threshold": 0.4, "voltage_decay": 0.1})
MODULES = {ss.block.cuba: CUBA, ss.block.lif: LIF, ss.block.integrate_fire: IF}
modules = pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__.rpartition(".")[2])
seeds = st.integers(0, 2**32 - 1)

# Every block with a neuron: made from a neuron, with the features of its input.
BLOCKS = {
    "Input": (lambda block, neuron, **o: block.Input(neuron, 1.5, 0.1, **o), (6,)),
    "Dense": (lambda block, neuron, **o: block.Dense(neuron, 6, 4, weight_scale=2.0, **o), (6,)),
    "Conv": (
        lambda block, neuron, **o: block.Conv(neuron, 2, 4, 3, padding=1, weight_scale=3.0, **o),
        (2, 5, 5),
    ),
    "ConvT": (
        lambda block, neuron, **o: block.ConvT(neuron, 2, 4, 2, stride=2, weight_scale=3.0, **o),
        (2, 5, 5),
    ),
    "Pool": (lambda block, neuron, **o: block.Pool(neuron, 2, weight=0.2, **o), (2, 5, 5)),
}
every = pytest.mark.parametrize(("make", "features"), BLOCKS.values(), ids=list(BLOCKS))


def draw(shape, seed=0, dtype=torch.float32):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def run_all_modes(block, x):
    """Sampled and fitted on x (T, N, ...), then the outputs in all modes."""
    outs = [block(x, mode=SAMPLE), block(x, mode=FIT), block(x, mode=ANN), block(x, mode=SNN)]
    return [out[0] if isinstance(out, tuple) else out for out in outs]


@st.composite
def synaptic_blocks(draw_from):
    """A block with any synapse and norm, and the features of its input."""
    norm = draw_from(st.sampled_from([None, "batch", "mean_only"]))
    neuron = NEURON | ({"norm": norm} if norm else {})
    small = st.integers(1, 3)
    kind = draw_from(st.sampled_from(["Dense", "Conv", "ConvT", "Pool", "Input"]))
    options = {"bias": draw_from(st.booleans()), "weight_norm": draw_from(st.booleans())}
    if kind == "Dense":
        n_in, n_out = draw_from(small), draw_from(small)
        return ss.block.lif.Dense(neuron, n_in, n_out, **options), (n_in,)
    if kind == "Input":
        return ss.block.lif.Input(dict(NEURON), 0.7, -0.2), (3,)
    kernel, stride, padding = draw_from(small), draw_from(small), draw_from(st.integers(0, 1))
    if kind == "Pool":
        pool = {"kind": draw_from(st.sampled_from(["sum", "average"])), "weight": 0.3}
        padding = min(padding, kernel // 2)
        return ss.block.lif.Pool(dict(NEURON), kernel, stride, padding, **pool), (2, 7, 6)
    groups, dilation = draw_from(small), draw_from(st.integers(1, 2))
    block = getattr(ss.block.lif, kind)(
        neuron, 2 * groups, groups, kernel, stride, padding, dilation, groups, **options
    )
    return block, (2 * groups, 7, 6)


class TestCommuting:
    """Averaging over time commutes with everything but the neuron."""

    @given(synaptic_blocks(), seeds, st.integers(1, 5), st.booleans())
    @settings(max_examples=60)
    def test_of_synapse_and_norm(self, made, seed, time_steps, training):
        block, features = made
        block.train(training)
        x = draw((time_steps, 3, *features), seed)

        def weigh(block, x):
            z = block.synapse(x)
            return z if block.norm is None else block.norm(z)

        twin = copy.deepcopy(block)
        z, of_mean = weigh(block, x).mean(0), weigh(twin, x.mean(0))
        torch.testing.assert_close(z, of_mean, rtol=1e-3, atol=1e-4)
        for name, buffer in block.named_buffers():
            torch.testing.assert_close(buffer, twin.get_buffer(name), rtol=1e-3, atol=1e-5)

    @pytest.mark.filterwarnings("ignore::spikestrap.SpikestrapWarning")
    @every
    @given(seeds, st.integers(2, 4))
    @settings(max_examples=5)
    def test_held_input_is_the_repeated_one(self, make, features, seed, time_steps):
        """Weights of few bits: sums are exact in any order, so spikes are equal."""
        block = make(ss.block.lif, NEURON)
        with torch.no_grad():
            for p in block.synapse.parameters():
                p.copy_((p * 8).round() / 8)
        x = (draw((3, *features), seed) * 8).round() / 8
        held = block(hold(x, time_steps), mode=SNN)
        repeated = block(hold(x, time_steps).clone(), mode=SNN)
        assert torch.equal(held, repeated)
        outs = []
        for given_x in (hold(x, time_steps), hold(x, time_steps).clone()):
            twin = copy.deepcopy(block)
            outs.append(run_all_modes(twin, given_x))
        for a, b in zip(*outs, strict=True):
            torch.testing.assert_close(a, b)

    @every
    def test_held_input_has_the_gradients_of_the_repeated_one(self, make, features):
        block = make(ss.block.lif, NEURON)
        x = draw((3, *features))
        grads = []
        for held in (True, False):
            block.zero_grad()
            leaf = x.clone().requires_grad_()
            block(
                hold(leaf, 4) if held else leaf.repeat(4, *[1] * x.ndim), mode=SNN
            ).sum().backward()
            grads.append([leaf.grad, *(p.grad for p in block.parameters())])
        for a, b in zip(*grads, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)

    def test_a_held_input_is_weighed_once(self):
        block, seen = ss.block.lif.Dense(NEURON, 6, 4), []
        block.synapse.register_forward_hook(lambda _, args, out: seen.append(args[0].shape[0]))
        block(hold(torch.rand(3, 6), 16), mode=SNN)
        block(hold(torch.rand(3, 6), 16).clone(), mode=SNN)
        assert seen == [1, 16]


class TestModes:
    @every
    @modules
    def test_shapes(self, make, features, module):
        neuron = {"threshold": 0.4}
        if module is ss.block.lif:
            neuron["voltage_decay"] = 0.1
        block = make(module, neuron)
        x = draw((4, 30, *features))
        sampled, fitted, ann, snn = run_all_modes(block, x)
        shape = snn.shape[1:]
        assert snn.shape == sampled.shape == (4, *shape)
        assert fitted.shape == ann.shape == shape
        assert shape[0] == 30
        assert 0 < snn.mean() < 1
        # ANN mode takes the mean over time as well as time itself.
        torch.testing.assert_close(block(x.mean(0), mode=ANN), ann)

    @every
    def test_snn_is_synapse_norm_neuron(self, make, features):
        block = make(ss.block.lif, NEURON)
        x = draw((4, 30, *features))
        z = block.synapse(x)
        assert torch.equal(block(x), LIF(**NEURON)(z))
        assert torch.equal(block(x, mode=SAMPLE), block(x, mode=SNN))

    def test_mode_is_snn_unless_told(self):
        block = ss.block.lif.Dense(NEURON, 6, 4)
        x = draw((4, 30, 6))
        assert torch.equal(block(x), block(x, mode=SNN))

    @every
    def test_spiking_needs_time(self, make, features):
        block = make(ss.block.lif, NEURON)
        for mode in (SNN, SAMPLE):
            with pytest.raises(SpikestrapError, match=f"{mode} needs time.*hold"):
                block(draw((3, *features)), mode=mode)

    @every
    def test_ann_before_a_fit(self, make, features):
        block = make(ss.block.lif, NEURON)
        for mode in (ANN, FIT):
            with pytest.raises(NotFittedError, match=r"Mode\.SAMPLE"):
                block(draw((3, *features)), mode=mode)

    @pytest.mark.parametrize("mode", ["snn", None, 1])
    def test_unknown_mode(self, mode):
        with pytest.raises(SpikestrapError, match="mode must be one of"):
            ss.block.lif.Dense(NEURON, 6, 4)(draw((4, 3, 6)), mode=mode)

    @every
    def test_the_curve_gives_the_rates_of_the_neuron(self, make, features):
        block = make(
            ss.block.integrate_fire, {"threshold": 1.0, "reset": "subtract", "v_init": 0.5}
        )
        x = hold(draw((500, *features)), 4)
        sampled, fitted, _, _ = run_all_modes(block, x)
        assert (fitted - sampled.mean(0)).abs().mean() < 0.01

    @pytest.mark.parametrize("training", [True, False])
    @pytest.mark.parametrize("norm", [None, "batch", "mean_only"])
    def test_sampled_is_what_the_curve_sees(self, norm, training, monkeypatch):
        """z after synapse and norm; spikes before dropout and delay."""
        neuron = NEURON | {"norm": norm, "dropout": 0.5}
        block = ss.block.lif.Dense(neuron, 6, 4, delay_shift=True).train(training)
        if norm:
            with torch.no_grad():
                block.norm.bias.add_(0.3)
        twin = copy.deepcopy(block)
        x = draw((4, 30, 6))
        z = block.synapse(x) if norm is None else copy.deepcopy(block).norm(block.synapse(x))

        recorded, seen = [], []
        sampler = block.unit.sampler
        monkeypatch.setattr(sampler, "append", lambda a, z: recorded.append((a, z)))
        block(x, mode=SAMPLE)
        ((a, sampled_z),) = recorded
        assert torch.equal(sampled_z, z)
        assert torch.equal(a, LIF(**dict(NEURON))(z))

        twin(x, mode=SAMPLE)
        twin.unit.sampler.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        if training and norm:
            # The statistics of this batch again.
            twin.norm.load_state_dict(block.norm.state_dict())
        twin(x, mode=FIT)
        torch.testing.assert_close(seen[0], sampled_z.mean(0), rtol=1e-4, atol=1e-5)


class TestOptions:
    @pytest.mark.parametrize(("name", "kind"), [("batch", BatchNorm), ("mean_only", MeanOnlyNorm)])
    @pytest.mark.parametrize("block", ["Dense", "Conv", "ConvT"])
    def test_norm(self, name, kind, block):
        args = (6, 4) if block == "Dense" else (2, 4, 3)
        made = getattr(ss.block.lif, block)({**NEURON, "norm": name}, *args)
        assert type(made.norm) is kind
        assert made.norm.bias.shape == (4,)
        assert getattr(ss.block.lif, block)(NEURON, *args).norm is None

    def test_norm_without_channels_is_refused_and_what_to_do_is_said(self):
        neuron = {**NEURON, "norm": "batch"}
        for make in (ss.block.lif.Input, lambda neuron: ss.block.lif.Pool(neuron, 2)):
            with pytest.raises(
                SpikestrapError, match=r"leave norm out .* \{\*\*neuron, 'norm': None\}"
            ):
                make(neuron)
            assert make({**neuron, "norm": None}).norm is None

    @pytest.mark.parametrize("mode", Mode)
    def test_dropout_has_one_mask_and_comes_last(self, mode):
        block = ss.block.lif.Dense({**NEURON, "dropout": 0.5}, 6, 400, weight_scale=3.0)
        x = draw((4, 30, 6))
        block.eval()
        block(x, mode=SAMPLE)
        block(x, mode=FIT)
        kept = block(x, mode=mode)
        block.train()
        dropped = block(x, mode=mode)
        alive = (dropped != 0) if not mode.spiking else (dropped != 0).any(0)
        fired = (kept != 0) if not mode.spiking else (kept != 0).any(0)
        assert 0.4 < (alive & fired).sum() / fired.sum() < 0.6
        expected = 2 * kept * alive
        torch.testing.assert_close(dropped, expected)

    def test_dropout_is_not_sampled(self):
        block = ss.block.lif.Dense({**NEURON, "dropout": 0.9}, 6, 40, weight_scale=3.0)
        plain = ss.block.lif.Dense(NEURON, 6, 40)
        plain.synapse.load_state_dict(block.synapse.state_dict())
        x = draw((4, 30, 6))
        block(x, mode=SAMPLE)
        plain(x, mode=SAMPLE)
        assert torch.equal(block.unit.sampler.statistics.pairs, plain.unit.sampler.statistics.pairs)

    def test_sampler_settings(self):
        sampler = {"slope": "fit", "memory": 0.5, "rounding": False, "cells": 16}
        made = ss.block.lif.Dense({**NEURON, "sampler": sampler}, 6, 4).unit.sampler
        assert (made.slope, made.memory, made.rounding) == ("fit", 0.5, False)
        assert made.values.shape == (1, 17)

    @pytest.mark.parametrize(("kind", "rounding"), [("lif", True), ("noisy_lif", False)])
    def test_rates_are_rounded_unless_the_neuron_is_stochastic(self, kind, rounding):
        dense = getattr(ss.block, kind).Dense
        assert dense(NEURON, 6, 4).unit.sampler.rounding is rounding
        chosen = {**NEURON, "sampler": {"rounding": not rounding}}
        assert dense(chosen, 6, 4).unit.sampler.rounding is not rounding

    def test_sampler_a_channel_knows_the_channels(self):
        sampler = {"per": "channel"}
        block = ss.block.lif.Conv({**NEURON, "sampler": sampler}, 2, 5, 3)
        assert block.unit.sampler.channels == 5
        assert sampler == {"per": "channel"}
        with pytest.raises(SpikestrapError, match="needs channels"):
            ss.block.lif.Pool({**NEURON, "sampler": sampler}, 2)

    def test_neurons_that_differ_have_a_curve_each(self):
        threshold, steps = torch.tensor([0.5, 1.0, 2.0]), 4
        neuron = {"threshold": threshold, "v_init": threshold / 2, "reset": "subtract"}
        for block in (
            ss.block.integrate_fire.Pool(neuron, 1),
            ss.block.integrate_fire.Pool({**neuron, "sampler": {"per": "layer"}}, 1),
        ):
            x = 3 * torch.rand(1, 500, 3, 4, 4) - 0.5
            block(x.expand(steps, *x.shape[1:]), SAMPLE)
            probe = torch.linspace(-0.5, 2.5, 501).view(-1, 1, 1, 1).expand(-1, 3, 1, 1)
            # From half a threshold and reset by subtraction: rounded to k / T.
            known = steps * probe / threshold.view(3, 1, 1)
            known = known.round().clamp(0, steps) / steps
            wrong = (block(probe, Mode.FIT) != known).float().mean((0, 2, 3))
            if block.unit.sampler.per == "channel":
                assert wrong.max() < 0.08
            else:
                assert wrong.min() > 0.1

    @pytest.mark.parametrize("convolution", ["Conv", "ConvT"])
    def test_feature_maps_have_a_curve_each_unless_told_otherwise(self, convolution):
        make = getattr(ss.block.lif, convolution)
        sampler = make(NEURON, 2, 5, 3).unit.sampler
        assert (sampler.per, sampler.channels) == ("channel", 5)
        assert make(NEURON, 2, 1, 3).unit.sampler.per == "layer"
        assert make({**NEURON, "sampler": {"per": "layer"}}, 2, 5, 3).unit.sampler.per == "layer"
        residual = ss.block.Residual(ss.block.lif.Conv, NEURON, 2, 5)
        assert residual.second.unit.sampler.channels == 5

    @pytest.mark.parametrize("threshold", [1.0, torch.ones(4), torch.linspace(1, 2, 5000)])
    def test_neurons_that_are_alike_or_very_many_share_a_curve(self, threshold):
        count = 4 if isinstance(threshold, float) else len(threshold)
        block = ss.block.lif.Dense({**NEURON, "threshold": threshold}, 2, count)
        assert block.unit.sampler.per == "layer"

    @pytest.mark.parametrize("sampler", ["smooth", ["slope"], 3])
    def test_sampler_settings_are_a_dict(self, sampler):
        match = "Dense: sampler: expected a dict of settings of AnnSampler, got "
        with pytest.raises(SpikestrapError, match=match):
            ss.block.lif.Dense({**NEURON, "sampler": sampler}, 6, 4)

    def test_unknown_sampler_setting(self):
        with pytest.raises(SpikestrapError, match=r"Dense: sampler: .*cell"):
            ss.block.lif.Dense({**NEURON, "sampler": {"cell": 16}}, 6, 4)

    @pytest.mark.parametrize("options", [{}, {"weight_norm": True}, {"bias": True}])
    def test_state_dict_holds_before_any_forward(self, options):
        """Shapes are final at construction: no lazy parameters."""
        neuron = {**NEURON, "norm": "batch", "sampler": {"per": "channel"}}
        trained = ss.block.lif.Conv(neuron, 2, 4, 3, **options)
        outs = run_all_modes(trained.train(), draw((4, 30, 2, 5, 5)))
        assert len(outs) == 4
        fresh = ss.block.lif.Conv(neuron, 2, 4, 3, **options)
        file = io.BytesIO()
        torch.save(trained.state_dict(), file)
        file.seek(0)
        fresh.load_state_dict(torch.load(file, weights_only=True))
        trained.eval()
        fresh.eval()
        for mode in Mode:
            x = draw((4, 30, 2, 5, 5), seed=1)
            assert torch.equal(fresh(x, mode=mode), trained(x, mode=mode))


class TestCountLog:
    @every
    @pytest.mark.parametrize("mode", Mode)
    def test_is_the_mean_number_of_spikes_a_neuron_and_step(self, make, features, mode):
        x = draw((4, 30, *features))
        plain = make(ss.block.lif, NEURON)
        block = make(ss.block.lif, NEURON, count_log=True)
        block.synapse.load_state_dict(plain.synapse.state_dict())
        expected = dict(zip((SAMPLE, FIT, ANN, SNN), run_all_modes(plain, x), strict=True))[mode]
        run_all_modes(block, x)
        out, rate = block(x, mode=mode)
        assert torch.equal(out, expected)
        assert rate.shape == ()
        assert rate.item() == pytest.approx(expected.double().mean().item(), rel=1e-5)
        assert 0 < rate < 1
        assert not rate.requires_grad

    def test_counts_before_dropout(self):
        block = ss.block.lif.Dense({**NEURON, "dropout": 0.9}, 6, 40, count_log=True)
        x = draw((4, 30, 6))
        _, rate = block(x, mode=SNN)
        assert rate.item() == pytest.approx(block.eval()(x, mode=SNN)[0].mean().item())

    def test_in_half_precision(self):
        # 2**20 spikes do not fit into float16's mean.
        block = ss.block.integrate_fire.Input({"threshold": 0.5}, count_log=True).half()
        out, rate = block(torch.ones(4, 4, 2**16, dtype=torch.float16), mode=SNN)
        assert out.dtype is torch.float16
        assert rate == 1


class TestDelayShift:
    @every
    def test_spikes_come_one_step_late(self, make, features):
        plain = make(ss.block.lif, NEURON)
        late = make(ss.block.lif, NEURON, delay_shift=True)
        late.synapse.load_state_dict(plain.synapse.state_dict())
        x = draw((5, 3, *features))
        now, then = plain(x, mode=SNN), late(x, mode=SNN)
        assert then.shape == now.shape  # no step is lost from the shape
        assert torch.equal(then[1:], now[:-1])
        assert (then[0] == 0).all()

    def test_leaves_rates_and_samples_alone(self):
        plain = ss.block.lif.Dense(NEURON, 6, 4, weight_scale=2.0)
        late = ss.block.lif.Dense(NEURON, 6, 4, delay_shift=True)
        late.synapse.load_state_dict(plain.synapse.state_dict())
        x = draw((5, 30, 6))
        for block in (plain, late):
            block(x, mode=SAMPLE)
        assert torch.equal(late.unit.sampler.statistics.pairs, plain.unit.sampler.statistics.pairs)
        assert torch.equal(late(x, mode=FIT), plain(x, mode=FIT))

    def test_of_a_single_step(self):
        late = ss.block.lif.Dense(NEURON, 6, 4, delay_shift=True)
        assert (late(draw((1, 3, 6)), mode=SNN) == 0).all()


class TestNeurons:
    @every
    @modules
    def test_a_dict_makes_the_modules_neuron(self, make, features, module):
        neuron = {"threshold": 0.7, "reset": "subtract", "v_init": 0.2, "surrogate": "arctan"}
        neuron |= {"tau_grad": 0.5, "scale_grad": 2.0, "detach_reset": False}
        neuron |= {"learnable": ("threshold",)}
        if module is ss.block.lif:
            neuron["voltage_decay"] = 0.1
        made = make(module, neuron).unit.neuron
        assert type(made) is MODULES[module]
        assert made.threshold.item() == pytest.approx(0.7)
        assert isinstance(made.threshold, nn.Parameter)
        assert made.v_init.item() == pytest.approx(0.2)
        firing = made.firing
        assert (firing.reset, firing.surrogate, firing.detach_reset) == (
            "subtract",
            "arctan",
            False,
        )
        assert (firing.tau_grad, firing.scale_grad) == (0.5, 2.0)

    @modules
    def test_has_every_block_with_the_signature_of_the_plain_one(self, module):
        for plain in bind.BOUND:
            bound = getattr(module, plain.__name__)
            assert issubclass(bound, plain)
            assert inspect.signature(bound) == inspect.signature(plain)
            assert bound.__module__ == module.__name__
            assert MODULES[module].__name__ in bound.__doc__

    @every
    @modules
    def test_bound_blocks_pickle(self, make, features, module):
        neuron = {"threshold": 0.4} | ({"voltage_decay": 0.1} if module is ss.block.lif else {})
        block = make(module, neuron)
        x = draw((4, 30, *features))
        run_all_modes(block, x)
        for twin in (pickle.loads(pickle.dumps(block)), copy.deepcopy(block)):
            assert type(twin) is type(block)
            for mode in Mode:
                assert torch.equal(twin(x, mode=mode), block(x, mode=mode))

    @every
    def test_the_dict_is_left_as_it_is(self, make, features):
        sampler = {"memory": 0.5}
        neuron = {**NEURON, "dropout": 0.1, "sampler": sampler, "learnable": ("threshold",)}
        before = copy.deepcopy(neuron)
        one, other = make(ss.block.lif, neuron), make(ss.block.lif, neuron)
        assert neuron == before
        assert neuron["sampler"] is sampler
        # Nothing is shared between blocks made of one dict.
        with torch.no_grad():
            one.unit.neuron.threshold.fill_(9.0)
        assert other.unit.neuron.threshold.item() == pytest.approx(0.4)
        make(ss.block.lif, MappingProxyType(neuron))

    @pytest.mark.parametrize(
        ("key", "close"),
        [("treshold", "threshold"), ("voltage_decai", "voltage_decay"), ("drop_out", "dropout")],
    )
    def test_unknown_keys_suggest_the_known(self, key, close):
        with pytest.raises(
            SpikestrapError, match=f"Dense: unknown .*{key}.*mean '{close}'.*known:"
        ):
            ss.block.lif.Dense({**NEURON, key: 0.1}, 6, 4)

    def test_keys_of_another_neuron_are_unknown(self):
        with pytest.raises(SpikestrapError, match="unknown neuron parameter 'current_decay'"):
            ss.block.lif.Dense({**NEURON, "current_decay": 0.1}, 6, 4)
        with pytest.raises(SpikestrapError, match="unknown neuron parameter 3"):
            ss.block.lif.Dense({**NEURON, 3: 0.1}, 6, 4)

    def test_missing_keys_are_named(self):
        with pytest.raises(SpikestrapError, match=r"Dense: LIF.*voltage_decay"):
            ss.block.lif.Dense({"threshold": 1.0}, 6, 4)

    def test_bad_values_are_refused(self):
        with pytest.raises(SpikestrapError, match="threshold must be > 0, got -1"):
            ss.block.lif.Dense({**NEURON, "threshold": -1.0}, 6, 4)

    @pytest.mark.parametrize("neuron", [None, 1.0, [("threshold", 1.0)], LIF])
    def test_what_is_no_neuron_is_refused(self, neuron):
        with pytest.raises(
            SpikestrapError, match="Dense: expected a dict of neuron parameters, or"
        ):
            ss.block.lif.Dense(neuron, 6, 4)
        with pytest.raises(SpikestrapError, match="Dense: expected a Neuron, got"):
            ss.block.Dense(neuron, 6, 4)
        with pytest.raises(SpikestrapError, match="Dense: expected a Neuron, got dict"):
            ss.block.Dense(dict(NEURON), 6, 4)

    @every
    def test_plain_blocks_take_an_instance(self, make, features):
        neuron = LIF(**NEURON)
        block = make(ss.block, neuron)
        bound = make(ss.block.lif, neuron)
        assert block.unit.neuron is neuron
        assert bound.unit.neuron is neuron
        x = draw((4, 30, *features))
        block.synapse.load_state_dict(bound.synapse.state_dict())
        assert torch.equal(block(x), bound(x))

    @every
    def test_a_neuron_of_ones_own_in_all_modes(self, make, features):
        block = make(ss.block, Halving())
        x = draw((4, 200, *features)).requires_grad_()
        sampled, fitted, ann, snn = run_all_modes(block, x)
        assert torch.equal(sampled, snn)
        assert torch.equal(fitted, ann)
        assert (ann - snn.mean(0)).abs().mean() < 0.15
        for mode in Mode:
            block.zero_grad()
            block(x, mode=mode).sum().backward()
            if mode.spiking:
                assert block.unit.neuron.threshold.grad != 0


class Halving(Neuron):
    """Its membrane halves at every step, and with every spike."""

    def __init__(self):
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(0.5))

    def init_state(self, z):
        return (torch.zeros_like(z),)

    def step(self, z, state):
        v = state[0] / 2 + z
        spikes = ss.neuron.spike(v, self.threshold, ss.neuron.SURROGATES["fast_sigmoid"])
        return spikes, (v * (1 - spikes.detach() / 2),)


class TestAffine:
    @pytest.mark.parametrize("neuron", [None, dict(NEURON), LIF(**NEURON)])
    def test_reads_the_mean_over_time(self, neuron):
        block = ss.block.lif.Affine(neuron, 6, 3)
        x = draw((4, 5, 6))
        weight, bias = block.synapse.weight, block.synapse.layer.bias
        expected = x.mean(0) @ weight.T + bias
        for mode in Mode:
            torch.testing.assert_close(block(x, mode=mode), expected)
            torch.testing.assert_close(block(x.mean(0), mode=mode), expected)
        assert not list(ss.unit.units_of(block))

    def test_checks_its_dict_all_the_same(self):
        with pytest.raises(SpikestrapError, match="Affine: unknown neuron parameter 'treshold'"):
            ss.block.lif.Affine({"treshold": 1.0}, 6, 3)

    def test_options(self):
        torch.manual_seed(1)
        block = ss.block.Affine(None, 6, 3, bias=False, weight_scale=2.0, weight_norm=True)
        torch.manual_seed(1)
        plain = ss.block.Affine(None, 6, 3, bias=False)
        assert block.synapse.layer.bias is None
        torch.testing.assert_close(block.synapse.weight, 2 * plain.synapse.weight)

    def test_gradients_need_one_step_of_a_held_input(self):
        block, x = ss.block.Affine(None, 6, 3), torch.rand(5, 6, requires_grad=True)
        block(hold(x, 4)).sum().backward()
        torch.testing.assert_close(x.grad, block.synapse.weight.sum(0).expand(5, 6))


class TestArguments:
    """The order of arguments is lava-dl's."""

    CONVOLUTION = ("neuron", "in_features", "out_features", "kernel_size", "stride", "padding")

    @pytest.mark.parametrize(
        ("name", "first"),
        [
            ("Input", ["neuron", "weight", "bias"]),
            ("Dense", ["neuron", "in_neurons", "out_neurons"]),
            ("Conv", ["neuron", "in_features", "out_features", "kernel_size", "stride", "padding"]),
            (
                "ConvT",
                ["neuron", "in_features", "out_features", "kernel_size", "stride", "padding"],
            ),
            ("Pool", ["neuron", "kernel_size", "stride"]),
            ("Affine", ["neuron", "in_neurons", "out_neurons"]),
        ],
    )
    def test_order(self, name, first):
        for module in (ss.block, *MODULES):
            names = list(inspect.signature(getattr(module, name)).parameters)
            assert names[: len(first)] == list(first)

    def test_convolution_is_torchs(self):
        args = (4, 6, 3, 2, 1, 2, 2)
        block, plain = ss.block.lif.Conv(NEURON, *args, bias=True), nn.Conv2d(*args)
        plain.load_state_dict(block.synapse.layer.state_dict())
        x = draw((4, 3, 4, 9, 8))
        torch.testing.assert_close(block.synapse(x)[2], plain(x[2]))

    def test_transposed_convolution_is_torchs(self):
        block = ss.block.lif.ConvT(NEURON, 4, 6, 3, 2, 1, 2, 2, bias=True)
        plain = nn.ConvTranspose2d(4, 6, 3, 2, 1, groups=2, dilation=2)
        plain.load_state_dict(block.synapse.layer.state_dict())
        x = draw((4, 3, 4, 9, 8))
        torch.testing.assert_close(block.synapse(x)[2], plain(x[2]))

    def test_input_learns_its_weight_and_bias(self):
        block = ss.block.lif.Input(NEURON, weight=2.0, bias=-0.5)
        x = draw((4, 30, 6))
        torch.testing.assert_close(block.synapse(x), 2 * x - 0.5)
        block(x).sum().backward()
        assert block.synapse.weight.grad != 0
        assert block.synapse.bias.grad != 0


def test_a_block_used_twice_learns_in_every_mode():
    """A shared layer is sampled, fitted and run at both places."""
    block = ss.block.lif.Dense(NEURON, 6, 6, weight_scale=2.0)
    x = draw((4, 30, 6))
    for mode in (SAMPLE, FIT, ANN, SNN):
        block.zero_grad()
        block(block(x, mode=mode), mode=mode).sum().backward()
        assert (block.synapse.layer.weight.grad != 0).any()


def test_autocast():
    block = ss.block.lif.Dense({**NEURON, "norm": "batch"}, 6, 40, weight_scale=2.0)
    x = draw((4, 30, 6))
    with torch.autocast("cpu", torch.bfloat16):
        outs = run_all_modes(block, x)
    for out in outs:
        assert ((out >= 0) & (out <= 1)).all()
    assert block.norm.running_mean.dtype is torch.float32
    exact = run_all_modes(block, x)
    for out, expected in zip(outs, exact, strict=True):
        assert (out.float() - expected).abs().mean() < 0.05


def test_own_neuron_takes_the_blocks_options():
    made = ss.block.Dense({"neuron": ss.neuron.IF(1.0), "norm": "batch", "dropout": 0.5}, 6, 4)
    assert isinstance(made.unit.neuron, ss.neuron.IF)
    assert made.norm is not None
    assert made.dropout.p == 0.5
    with pytest.raises(
        ss.SpikestrapError, match=r"beside a Neuron, expected norm.* got 'threshold'"
    ):
        ss.block.Dense({"neuron": ss.neuron.IF(1.0), "threshold": 2.0}, 6, 4)


CONV = (NEURON, 4, 8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda b: b.Dense(NEURON, 6.0, 8), "Dense: in_neurons must .* got 6.0"),
        (lambda b: b.Dense(NEURON, 6, 0), "Dense: out_neurons must .* >= 1, got 0"),
        (lambda b: b.Dense(NEURON, 6, 8, weight_scale="x"), "Dense: weight_scale .* got 'x'"),
        (lambda b: b.Dense(NEURON, 6, 8, weight_scale=torch.ones(2)), "Dense: weight_scale "),
        (lambda b: b.Affine(None, "6", 8), "Affine: in_neurons .* got '6'"),
        (lambda b: b.Recurrent(NEURON, -6, 8), "Recurrent: in_neurons .* got -6"),
        (lambda b: b.KWTA(NEURON, 6, 8.5, 2), "KWTA: out_neurons .* got 8.5"),
        (lambda b: b.Input(NEURON, weight=float("nan")), "Input: weight .* got nan"),
        (lambda b: b.Input(NEURON, bias=None), "Input: bias .* got None"),
        (lambda b: b.Conv(NEURON, True, 8, 3), "Conv: in_features .* got True"),
        (lambda b: b.Conv(*CONV, 0), "Conv: kernel_size must be a pair, or .* >= 1, got 0"),
        (lambda b: b.Conv(*CONV, (3, 3.0)), "Conv: a side of kernel_size .* got 3.0"),
        (lambda b: b.Conv(*CONV, (3,)), r"Conv: kernel_size .*\(height, width\), got \(3,\)"),
        (lambda b: b.Conv(*CONV, 3, stride=0), "Conv: stride .* got 0"),
        (lambda b: b.Conv(*CONV, 3, padding=-1), "Conv: padding .* >= 0, got -1"),
        (lambda b: b.Conv(*CONV, 3, padding="all"), "Conv: padding .* >= 0, got 'all'"),
        (lambda b: b.ConvT(*CONV, 3, padding="same"), "ConvT: padding .* >= 0, got 'same'"),
        (lambda b: b.Conv(*CONV, 3, 2, padding="same"), "Conv: padding='same' .* 1, got 2"),
        (lambda b: b.Conv(*CONV, 3, dilation=1.5), "Conv: dilation .* got 1.5"),
        (lambda b: b.Conv(*CONV, 3, groups=3), "Conv: groups must divide in_features = 4 .* got 3"),
        (lambda b: b.Pool(NEURON, 0), "Pool: kernel_size .* got 0"),
        (lambda b: b.Pool(NEURON, 2, 0), "Pool: stride .* got 0"),
        (lambda b: b.Pool(NEURON, 2, padding=2), r"Pool: padding .* half of .*\(2, 2\), got 2"),
    ],
)
def test_sizes_that_make_no_synapse_are_refused(make, message):
    with pytest.raises(SpikestrapError, match=message):
        make(ss.block.cuba)


def test_sizes_of_numpy_and_in_lists_are_sizes():
    eight = np.int64(8)
    assert ss.block.lif.Dense(NEURON, eight, eight).synapse.weight.shape == (8, 8)
    conv = ss.block.lif.Conv(NEURON, np.int32(2), 8, [3, np.int64(1)], padding=np.int64(1))
    assert conv.synapse.weight.shape == (8, 2, 3, 1)
    conv = ss.block.lif.Conv(NEURON, 2, 8, np.array([3, 1]), padding=torch.tensor([1, 0]))
    assert (conv.synapse.layer.kernel_size, conv.synapse.layer.padding) == ((3, 1), (1, 0))
    same = ss.block.lif.Conv(NEURON, 2, 8, 3, padding="same")
    assert same(torch.rand(4, 5, 2, 6, 6)).shape == (4, 5, 8, 6, 6)
