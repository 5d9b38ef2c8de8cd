"""A frozen network gives the logits of the network that it was made of, as an SNN."""

import copy
import io
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.lora import LowRank
from torch import nn
from torch.nn.utils import prune, spectral_norm

import spikestrap as ss
from spikestrap import block
from spikestrap.frozen.stages import AsItIs, Layer
from spikestrap.neuron import (
    ALIF,
    CUBA,
    IF,
    LIF,
    PLIF,
    RF,
    AdRF,
    AdRFIzhikevich,
    NoisyLIF,
    RefractoryLIF,
    RFIzhikevich,
)  # fmt: skip

SNN = ss.Mode.SNN
PER_CHANNEL = torch.linspace(0.5, 1.5, 8)
# All that a block of 8 channels may have.
NEURONS = {
    "cuba": lambda: CUBA(0.75, current_decay=0.5, voltage_decay=0.25, reset="subtract"),
    "cuba channels": lambda: CUBA(PER_CHANNEL, current_decay=PER_CHANNEL / 2, v_init=0.25),
    "lif": lambda: LIF(0.75, voltage_decay=0.1, reset="none"),
    "lif channels": lambda: LIF(PER_CHANNEL, voltage_decay=0.25, learnable=("threshold",)),
    "if": lambda: IF(0.75, reset="subtract", v_init=0.375),
    "if channels": lambda: IF(0.75, v_init=PER_CHANNEL / 4),
    "alif": lambda: ALIF(0.75, 0.25, current_decay=0.5, voltage_decay=0.25),
    "plif": lambda: PLIF(0.5),
    "refractory": lambda: RefractoryLIF(0.5, 0.1, 1),
    "noisy": lambda: NoisyLIF(0.75, 0.1, 0.25),
    "rf": lambda: RF(0.5, 4.0, 0.1),
    "rf_iz": lambda: RFIzhikevich(0.5, 4.0, 0.1),
    "adrf": lambda: AdRF(0.5, 0.25, 4.0, 0.1),
    "adrf_iz": lambda: AdRFIzhikevich(0.5, 0.25, 4.0, 0.1),
}


# Blocks from features (12,) to (8,), or from (2, 6, 6) to (8, ...); each gets a neuron dict.
FLAT = {
    "dense": lambda n: [block.Dense(n(), 12, 8)],
    "two": lambda n: [block.Dense(LIF(0.5, 0.1), 12, 40), block.Dense(n(), 40, 8, bias=True)],
    "wide": lambda n: [block.Dense(LIF(1.0, 0.1), 12, 64), block.Dense(IF(0.5), 64, 48),
                       block.Dense(n(), 48, 8)],
    "weight norm": lambda n: [block.Dense(n(), 12, 8, weight_norm=True)],
    "input": lambda n: [block.Input(LIF(0.5, 0.1), 1.5, 0.25), block.Dense(n(), 12, 8)],
    "recurrent": lambda n: [block.Recurrent(n(), 12, 8, delay=2)],
    "delay": lambda n: [block.Dense(n(), 12, 8), block.Delay(8, 2, initial=1.0)],
    "shift": lambda n: [block.Dense(n(), 12, 8, delay_shift=True), block.Dropout(0.5)],
    "count": lambda n: [block.Dense(n(), 12, 8, count_log=True)],
}  # fmt: skip
IMAGES = {
    "conv": lambda n: [block.Conv(n(), 2, 8, 3, padding=1, bias=True)],
    "stride": lambda n: [block.Conv(n(), 2, 8, (3, 2), stride=(2, 1), padding=(0, 1))],
    "groups": lambda n: [block.Conv(LIF(0.5, 0.1), 2, 8, 3, groups=2, dilation=2, padding=2),
                         block.Conv(n(), 8, 8, 3)],
    "transposed": lambda n: [block.ConvT(n(), 2, 8, 2, stride=2)],
    "pool": lambda n: [block.Conv(n(), 2, 8, 3, padding=1), block.AvgPool(2)],
    "padded pool": lambda n: [block.Conv(IF(0.5), 2, 4, 3, padding=1), block.AvgPool(3, 2, 1),
                              block.Conv(n(), 4, 8, 3, padding=1)],
    "weighted pool": lambda n: [block.Conv(IF(0.5), 2, 4, 3), block.AvgPool(2, weight=3.0),
                                block.Conv(n(), 4, 8, 1)],
    "odd pool": lambda n: [block.Conv(IF(0.5), 2, 4, 3, padding=1), block.AvgPool((2, 3), (3, 1)),
                           block.Conv(n(), 4, 8, 1)],
    "pool neurons": lambda n: [block.Conv(LIF(0.5, 0.1), 2, 8, 3), block.Pool(n(), 2)],
    "upsample": lambda n: [block.Conv(n(), 2, 8, 3), block.Upsample(2)],
    "residual": lambda n: [block.Residual(block.Conv, n(), 2, 8, stride=2)],
    "residual same": lambda n: [block.Conv(LIF(0.5, 0.1), 2, 8, 3, padding=1),
                                block.Residual(block.Conv, n(), 8, 8)],
}  # fmt: skip


def network(made, neuron, time_steps, image, seed=0):
    """Blocks, and a readout from whatever shape they end in."""
    torch.manual_seed(seed)
    made = [*made(neuron)]
    x = torch.rand(2, 2, *((2, 6, 6) if image else (12,)))
    y = x
    with torch.no_grad():
        for each in nn.ModuleList(made).eval():
            y = each(y, mode=SNN)
            y = y[0] if isinstance(y, tuple) else y
    made += [block.Flatten()] if image else []
    made += [block.Affine(None, y[0, 0].numel(), 5)]
    return ss.Network(*made, time_steps=time_steps)


def inputs(net, samples, image):
    shape = (samples, *((2, 6, 6) if image else (12,)))
    return torch.rand(shape) * 3 if net.time_steps else torch.rand(3, *shape) * 3


def round_weights(net):
    """To whole 1/64: all sums are then exact, in whatever order they are taken."""
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim:
                parameter.copy_((parameter * 64).round() / 64)


def logits(net, x):
    torch.manual_seed(1)
    with torch.no_grad():
        out = net.eval()(x, SNN)
    return out[0] if isinstance(out, tuple) else out


def frozen_logits(net, x):
    frozen = net.freeze()
    torch.manual_seed(1)
    return frozen(x)


@pytest.mark.parametrize("kind", [*FLAT, *IMAGES])
@settings(max_examples=10)
@given(
    st.sampled_from(sorted(NEURONS)),
    st.sampled_from([None, 1, 3, 4]),
    st.sampled_from([1, 9, 20]),
    st.integers(0, 1000),
)
def test_same_logits_where_sums_are_exact(kind, neuron, time_steps, samples, seed):
    image = kind in IMAGES
    net = network((IMAGES if image else FLAT)[kind], NEURONS[neuron], time_steps, image, seed)
    round_weights(net)
    x = (inputs(net, samples, image) * 16).round() / 16
    exact = kind not in ("weight norm", "padded pool", "odd pool")
    out, expected = frozen_logits(net, x), logits(net, x)
    assert out.shape == expected.shape
    assert not out.is_inference()
    close = torch.isclose(out, expected, rtol=1e-5, atol=1e-5).all(1)
    # Where sums are rounded, a spike may tip now and then.
    assert close.all() if exact else close.double().mean() >= 0.8


@pytest.mark.parametrize("kind", [*FLAT, *IMAGES])
def test_there_are_spikes_to_compare(kind):
    image = kind in IMAGES
    net = network((IMAGES if image else FLAT)[kind], NEURONS["if"], 4, image)
    assert logits(net, inputs(net, 20, image)).std(0).max() > 0.01


@pytest.mark.parametrize("norm", ["batch", "mean_only"])
@pytest.mark.parametrize("kind", ["dense", "conv", "residual"])
@pytest.mark.parametrize("neuron", [CUBA, PLIF])
def test_norms_are_folded(norm, kind, neuron):
    parameters = {"neuron": neuron(0.75, 0.5), "norm": norm}
    image = kind != "dense"
    made = (IMAGES if image else FLAT)[kind]
    net = network(made, lambda: parameters, 4, image)
    for _ in range(3):  # statistics to fold
        net.train()(inputs(net, 32, image), SNN)
    with torch.no_grad():
        for each in net.modules():
            if isinstance(each, ss.norm.Norm):
                each.bias.copy_(torch.randn_like(each.bias) / 4)
                if norm == "batch":
                    each.weight.copy_(torch.rand_like(each.weight) + 0.5)
    x = inputs(net, 40, image)
    out, expected = frozen_logits(net, x), logits(net, x)
    assert expected.std(0).min() > 0.01
    close = torch.isclose(out, expected, rtol=1e-4, atol=1e-4).all(1)
    assert close.double().mean() >= 0.95


@given(st.sampled_from(["dense", "conv", "input", "recurrent"]), st.integers(1, 7), st.booleans())
def test_the_chips_precision_is_exact(kind, time_steps, subtract):
    norm = "batch" if kind in ("dense", "conv") else None
    neuron = {
        "neuron": CUBA(1.0, 1.0, 0.125, reset="subtract" if subtract else "zero"), "norm": norm
    }  # fmt: skip
    made = {
        "dense": lambda: [block.Dense(neuron, 12, 64), block.Dense(neuron, 64, 8)],
        "conv": lambda: [block.Conv(neuron, 2, 8, 3), block.AvgPool(2), block.Flatten(),
                         block.Dense(neuron, 32, 8)],
        "input": lambda: [block.Input(neuron, 1.5), block.Dense(neuron, 12, 8)],
        "recurrent": lambda: [block.Input(neuron, 1.5), block.Recurrent(neuron, 12, 8)],
    }[kind]()  # fmt: skip
    net = ss.Network(
        *made, block.Affine(None, 8, 5, weight_scale=4.0), time_steps=time_steps, precision="loihi"
    )
    x = 2 * (torch.rand(20, *((2, 6, 6) if kind == "conv" else (12,))) * 64).round() / 64
    net.train()(x, SNN)
    assert torch.allclose(frozen_logits(net, x), logits(net, x), rtol=0, atol=2e-6)


def test_sigma_delta_and_complex_blocks():
    sigma, rf = block.sigma_delta, block.rf
    delta = {"threshold": 0.25}
    net = ss.Network(
        sigma.Input(delta), sigma.Dense(delta, 12, 8), sigma.Affine(delta, 8, 5), time_steps=None
    )
    x = torch.rand(3, 9, 12)
    assert torch.allclose(frozen_logits(net, x), logits(net, x), atol=1e-5)
    neuron = {"threshold": 0.25, "period": 4.0, "decay": 0.1}
    net = ss.Network(rf.ComplexDense(neuron, 12, 8), rf.Affine(neuron, 8, 5), time_steps=4)
    assert torch.allclose(frozen_logits(net, x[0]), logits(net, x[0]), atol=1e-5)


def test_k_winners():
    net = ss.Network(block.KWTA(LIF(0.5, 0.1), 12, 8, 2), block.Affine(None, 8, 5), time_steps=4)
    x = torch.rand(9, 12)
    assert torch.allclose(frozen_logits(net, x), logits(net, x), atol=1e-5)


def test_without_a_readout_it_gives_the_mean_over_time():
    net = network(FLAT["two"], NEURONS["if"], 4, False)
    net = ss.Network(*net.blocks[:2], time_steps=4)
    assert torch.equal(frozen_logits(net, (x := torch.rand(9, 12))), logits(net, x))


class Doubled(block.Dense):
    def forward(self, x, mode=SNN):
        return 2 * super().forward(x, mode)


class Twice(nn.Module):
    def forward(self, x, mode=SNN):
        assert x.dtype is torch.float32
        assert not self.training
        return 2 * x


class Late(block.Dense):
    def _run(self, x, mode):
        return super()._run(x, mode).flip(0)


class Ever(LIF):
    def step(self, z, state):
        spikes, state = super().step(z, state)
        return 1 - spikes, state


@pytest.mark.parametrize(
    "own", [lambda: Doubled(LIF(0.5, 0.1), 12, 8), lambda: Late(LIF(0.5, 0.1), 12, 8)]
)
def test_blocks_of_your_own_run_as_they_are(own):
    net = ss.Network(Twice(), own(), Twice(), block.Affine(None, 8, 5), time_steps=4)
    frozen = net.freeze()
    assert [isinstance(stage, AsItIs) for stage in frozen.stages] == [True, True, True, False]
    x = torch.rand(9, 12)
    assert torch.allclose(frozen(x), logits(net, x), atol=1e-6)


class Standardized(nn.Conv2d):
    """Weight standardization (Qiao et al., 2019)."""

    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return self._conv_forward(x, weight, self.bias)


class Louder(nn.Conv2d):
    """Another way to another convolution."""

    def _conv_forward(self, x, weight, bias):
        return 2 * super()._conv_forward(x, weight, bias)


def pruned(layer):
    return prune.l1_unstructured(layer, "weight", amount=0.5)


def doubled(layer):
    layer.register_forward_hook(lambda module, args, z: 2 * z)
    return layer


def halved(layer):
    layer.register_forward_pre_hook(lambda module, args: (args[0] / 2,))
    return layer


def of_layers(first, last):
    net = ss.Network(
        block.Conv({"neuron": LIF(0.5, 0.1), "norm": "batch"}, 1, 4, 3),
        block.Flatten(),
        block.Affine(None, 64, 5),
        time_steps=4,
    )
    net.blocks[0].synapse.layer, net.blocks[2].synapse.layer = first, last
    return net


@pytest.mark.parametrize(
    ("first", "last"),
    [
        (lambda: Standardized(1, 4, 3), lambda: LowRank(64, 5)),
        (lambda: pruned(nn.Conv2d(1, 4, 3)), lambda: pruned(nn.Linear(64, 5))),
        (lambda: spectral_norm(nn.Conv2d(1, 4, 3)), lambda: spectral_norm(nn.Linear(64, 5))),
        (lambda: doubled(nn.Conv2d(1, 4, 3)), lambda: halved(nn.Linear(64, 5))),
        (
            lambda: nn.Conv2d(1, 4, 5, padding=1, padding_mode="circular"),
            lambda: nn.Linear(64, 5),
        ),
        (lambda: Louder(1, 4, 3), lambda: nn.Linear(64, 5)),
    ],
    ids=["forward", "pruned", "spectral_norm", "hooks", "padding", "convolution"],
)
def test_layers_that_do_more_than_their_weights_say_run_as_they_are(first, last):
    net, x = of_layers(first(), last()), torch.rand(9, 1, 6, 6)
    frozen = net.freeze()
    found = frozen(x)
    assert torch.allclose(found, logits(net, x), atol=1e-6)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1.0)
    assert torch.equal(frozen(x), found)


@pytest.mark.parametrize(
    "where", ["blocks.0", "blocks.0.norm", "blocks.0.unit", "blocks.0.unit.neuron", "blocks.1"]
)
def test_hooks_run(where):
    net, x = of_layers(nn.Conv2d(1, 4, 3), nn.Linear(64, 5)), torch.rand(9, 1, 6, 6)
    before = logits(net, x)
    net.get_submodule(where).register_forward_hook(lambda module, args, out: out * 0.5)
    assert not torch.allclose(logits(net, x), before)
    assert torch.allclose(frozen_logits(net, x), logits(net, x), atol=1e-6)


def test_what_a_hook_set_before_the_weights_were_loaded_or_trained_is_not_used():
    net, other = (of_layers(pruned(nn.Conv2d(1, 4, 3)), pruned(nn.Linear(64, 5))) for _ in "ab")
    x = torch.rand(9, 1, 6, 6)
    logits(net, x)
    net.load_state_dict(other.state_dict())
    assert torch.allclose(frozen_logits(net, x), logits(other, x), atol=1e-6)
    net(x).sum().backward()
    assert torch.allclose(frozen_logits(net, x), logits(net, x), atol=1e-6)


def test_a_neuron_that_overrides_a_step_is_not_taken_for_what_it_derives_from():
    net = ss.Network(block.Dense(Ever(0.5, 0.1), 12, 8), time_steps=4)
    assert torch.equal(frozen_logits(net, (x := torch.rand(9, 12))), logits(net, x))


def test_several_threads_give_what_one_gives():
    net = network(IMAGES["pool"], NEURONS["lif"], 4, True)
    x, frozen, threads = torch.rand(30, 2, 6, 6) * 3, net.freeze(), torch.get_num_threads()
    outs = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            outs.append(frozen(x))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert all(torch.allclose(out, logits(net, x), atol=1e-5) for out in outs)


def test_a_large_layer_is_run_in_parts(monkeypatch):
    monkeypatch.setattr("spikestrap.frozen.network.CACHE", 3000)
    net = network(IMAGES["conv"], NEURONS["if"], 4, True)
    x = torch.rand(40, 2, 6, 6) * 3
    frozen = net.freeze()
    parts = []
    run = frozen._run
    monkeypatch.setattr(
        frozen, "_run", lambda part, **kw: parts.append(part.shape[1]) or run(part, **kw)
    )
    assert torch.allclose(frozen(x), logits(net, x), atol=1e-5)
    assert len(parts) > 3
    assert sum(parts) == 40


def test_neither_changes_the_other():
    net = network(FLAT["weight norm"], NEURONS["lif"], 4, False).train()
    x, before = torch.rand(9, 12), {k: v.clone() for k, v in net.state_dict().items()}
    frozen = net.freeze()
    out = frozen(x)
    assert net.training
    assert all(p.requires_grad for p in net.parameters())
    assert list(net.state_dict()) == list(before)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1.0)
    assert torch.equal(frozen(x), out)
    assert torch.equal(copy.deepcopy(frozen)(x), out)


@pytest.mark.parametrize("neuron", ["lif", "cuba channels", "noisy", "rf"])
@pytest.mark.parametrize("made", [*FLAT, *IMAGES])
def test_pickled_and_saved_it_computes_the_same(made, neuron):
    image = made in IMAGES
    net = network({**FLAT, **IMAGES}[made], NEURONS[neuron], 4, image)
    x, frozen = inputs(net, 9, image), net.freeze()
    file = io.BytesIO()
    torch.save(frozen, file)
    file.seek(0)
    again = (pickle.loads(pickle.dumps(frozen)), torch.load(file, weights_only=False))
    torch.manual_seed(0)
    expected = frozen(x)
    for each in again:
        torch.manual_seed(0)
        assert torch.equal(each(x), expected)
        assert repr(each) == repr(frozen)
    if isinstance(frozen.stages[0], Layer):
        assert type(again[0].stages[0].fire) is type(frozen.stages[0].fire)


def test_it_goes_to_processes_of_their_own():
    net = ss.Network(
        *FLAT["wide"](NEURONS["if"]), block.Affine(None, 8, 5), time_steps=4, precision="loihi"
    )
    x, frozen = torch.rand(9, 12), net.freeze()
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        assert torch.equal(pool.submit(frozen, x).result(), frozen(x))


def test_where_a_neuron_has_no_kernel_it_runs_as_it_is(monkeypatch):
    net = network(FLAT["two"], NEURONS["lif"], 4, False)
    x, frozen = inputs(net, 9, False), net.freeze()
    kept = pickle.dumps(frozen)
    monkeypatch.setattr("spikestrap.frozen.neurons.fused_wanted", lambda *_: False)
    torch.testing.assert_close(pickle.loads(kept)(x), frozen(x))


def test_it_does_not_touch_its_input_and_gives_no_gradient():
    net = network(FLAT["two"], NEURONS["lif"], 4, False)
    x = torch.rand(9, 12, requires_grad=True)
    before = x.detach().clone()
    out = net.freeze()(x)
    assert torch.equal(x.detach(), before)
    assert not out.requires_grad
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(net.freeze()(x), out)


def refusals():
    net = network(FLAT["two"], NEURONS["lif"], 4, False)
    frozen, temporal = net.freeze(), ss.Network(*net.blocks, time_steps=None).freeze()
    behind = ss.Network(*net.blocks, block.Dense(LIF(1.0, 0.1), 5, 5), time_steps=4).freeze()

    class Other(ss.Network):
        def forward(self, x, mode=SNN):
            return x

    return {
        "float64 on cpu": lambda: frozen(torch.rand(9, 12).double()),
        "expected an input (N, C)": lambda: frozen(torch.rand(4, 9, 12)),
        "expected an input (T, N, C)": lambda: temporal(torch.rand(9, 12)),
        "NaN": lambda: frozen(torch.full((9, 12), torch.nan)),
        "empty": lambda: frozen(torch.empty(0, 12)),
        "block 0 (Dense): expected (T, N, C)": lambda: frozen(torch.rand(9, 13)),
        "block 3 (Dense): expected spikes": lambda: behind(torch.rand(9, 12)),
        "forward of its own": lambda: Other(*net.blocks, time_steps=4).freeze(),
        "got torch.float64 on cpu for blocks": lambda: copy.deepcopy(net).double().freeze(),
        "on meta": lambda: copy.deepcopy(net).to("meta").freeze(),
    }


@pytest.mark.parametrize("message", sorted(refusals()))
def test_refuses(message):
    with pytest.raises(ss.SpikestrapError) as raised:
        refusals()[message]()
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_takes_no_lengths():
    frozen = network(FLAT["two"], NEURONS["lif"], None, False).freeze()
    with ss.ragged(torch.tensor([2, 3])), pytest.raises(ss.SpikestrapError, match="no lengths"):
        frozen(torch.rand(3, 2, 12))


def test_it_shows_its_stages():
    text = repr(network(FLAT["two"], NEURONS["lif"], 4, False).freeze())
    assert text.startswith("Frozen(time_steps=4,")
    assert "Dense" in text
    assert "0x" not in text
