from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import chip
from tests.fixed.cases import random_layers, random_network

import spikestrap as ss
from spikestrap import block, fixed
from spikestrap.exchange import hdf5_worker, netx

seeds = st.integers(0, 2**32 - 1)


def spikes_of(net, x):
    """Spikes that every block with a neuron hands on, in SNN mode, and a delay behind it."""
    found = []

    def keep(module, args, spikes):
        if isinstance(module, block.Delay):
            found.pop()
        found.append(spikes.detach().numpy())

    hooks = [
        module.register_forward_hook(keep)
        for module in net.blocks
        if isinstance(module, block.Block | block.Delay)
    ]
    with torch.no_grad():
        logits = net(x, ss.Mode.SNN)
    for hook in hooks:
        hook.remove()
    return found, logits.numpy()


def netx_runs(layer):
    """Whether netx runs the layer: it resets to zero; spikes leave in time, or a Dense has them."""
    plain = getattr(layer, "bias", None) is None and getattr(layer, "recurrent", None) is None
    late = layer.delay is not None and layer.delay.any()
    resets = layer.neuron is None or layer.neuron.reset == "zero"
    return resets and (not late or (isinstance(layer, fixed.Dense) and plain))


@pytest.mark.slow
@settings(max_examples=1000)
@given(seed=seeds)
def test_training_precision_integers_and_file_give_the_spikes_of_plain_python(
    seed, tmp_path_factory
):
    net, shape, time_steps = random_network(seed)
    x = torch.randint(256, (2, *shape)) / 255
    expected, logits = spikes_of(net, x)
    made = fixed.from_network(net, shape)

    judged, judged_logits = chip.simulate(made, x[0].flatten().tolist(), time_steps)
    for spikes, plain in zip(expected, judged.values(), strict=True):
        assert spikes[:, 0].reshape(time_steps, -1).tolist() == plain
    assert logits[0] == pytest.approx(judged_logits, abs=1e-5)

    nets = [made]
    if all(netx_runs(layer) for layer in made.layers):
        path = tmp_path_factory.getbasetemp() / "network.net"
        netx.write(made, path)
        nets.append(netx.from_tree(hdf5_worker.parse(str(path), 2**26)))
        assert nets[1].time_steps == time_steps
    for integers in nets:
        found = integers.spikes(x, time_steps)
        for spikes, ours in zip(expected, found.values(), strict=True):
            assert np.array_equal(spikes.astype(np.uint8), ours)
        result = integers.run(x, time_steps)
        assert result.logits == pytest.approx(logits, abs=1e-5)
        fired = integers.spikes(x, time_steps, delayed=False)
        assert result.events == {n: np.count_nonzero(s) for n, s in fired.items()}


@settings(max_examples=200)
@given(seed=seeds)
def test_delays_recurrence_channels_and_resets_are_those_of_plain_python(seed):
    net = random_layers(seed)
    draw = np.random.default_rng(seed)
    time_steps, entry = int(draw.integers(1, 9)), net.layers[0]
    if entry.neuron is None:
        x = draw.integers(0, 2, (time_steps, 2, *entry.shape))
        samples = [x[:, n].reshape(time_steps, -1).tolist() for n in range(2)]
    else:
        x = np.float32(draw.integers(0, 256, (2, *entry.shape)) / 255)
        samples = [each.flatten().tolist() for each in x]
    found, result = net.spikes(x, time_steps), net.run(x, time_steps)
    for n, sample in enumerate(samples):
        expected, logits = chip.simulate(net, sample, time_steps)
        for number, spikes in found.items():
            assert spikes[:, n].reshape(time_steps, -1).tolist() == expected[number]
        assert result.logits[n] == pytest.approx(logits)


@settings(max_examples=100)
@given(seed=seeds)
def test_zeroed_when_its_first_step_comes_a_layer_behind_others_fires_as_at_once(seed):
    """What netx does on the chip: every layer one step late, its bias there from the start."""
    made = random_layers(seed, exportable=True)
    entry = replace(made.layers[0], neuron=fixed.Neuron(np.array(40)))
    rest = [
        replace(layer, recurrent=None) if isinstance(layer, fixed.Dense) else layer
        for layer in made.layers[1:]
    ]
    x = np.float32(np.random.default_rng(seed).integers(0, 256, (2, *entry.shape)) / 255)
    at_once = fixed.Network([entry, *rest]).spikes(x, 6, delayed=False)
    chip_like = fixed.Network([entry, *rest], pipelined=True)
    found = chip_like.spikes(x, 10, reset_interval=6, delayed=False)
    for place, number in enumerate(at_once):
        assert np.array_equal(found[number][place : place + 6], at_once[number])


def delays(*values):
    initial = torch.tensor(values, dtype=torch.float32)
    return block.Delay(len(values), 4, initial=initial, learnable=False)


def pooled(*behind):
    neuron = {"threshold": 0.3}
    return ss.Network(
        block.cuba.Input(neuron, 2.0),
        delays(1, 3),
        block.AvgPool(2),
        *behind,
        block.cuba.Dense(neuron, 8, 5, weight_scale=4.0),
        block.cuba.Affine(None, 5, 3),
        time_steps=8,
        precision="loihi",
    )


@pytest.mark.parametrize("flat", [False, True])
def test_delays_behind_a_pooling_or_a_flatten_are_those_of_the_layer_before(flat):
    late = delays(2, 2, 2, 2, 0, 0, 0, 0) if flat else delays(2, 0)
    net = pooled(block.Flatten(), late) if flat else pooled(late, block.Flatten())
    chip, x = fixed.from_network(net, (2, 4, 4)), torch.rand(4, 2, 4, 4)
    assert chip.layers[0].delay.tolist() == [3, 3]
    with torch.no_grad():
        assert np.array_equal(chip.run(x).logits, net(x).double())


def test_one_channel_of_images_has_one_delay():
    net = pooled(block.Flatten(), delays(*range(4), *range(4)))
    with pytest.raises(ss.SpikestrapError, match=r"block 4 .Delay.: .*images by one number"):
        fixed.from_network(net, (2, 4, 4))


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([block.cuba.Input({"threshold": 1.0}), delays(1, 2, 3)], "3 delays behind 4 channels"),
        ([delays(0, 0, 1, 1)], "expected one as the first block, got Delay"),
        (
            [block.cuba.Input({"threshold": 1.0}), block.Delay(4, 99, initial=63)],
            "delay: expected numbers from 0 to 62",
        ),
        (
            [block.cuba.Input({"threshold": 1.0}), block.cuba.Affine(None, 4, 2), delays(0, 1)],
            "expected spikes to delay, got a readout",
        ),
    ],
)
def test_delays_that_a_chip_does_not_have_are_refused(blocks, message):
    net = ss.Network(*blocks, time_steps=4, precision="loihi")
    with pytest.raises(ss.SpikestrapError, match=message):
        fixed.from_network(net, (4,))


def test_what_comes_in_is_delayed_too():
    net = ss.Network(delays(1, 0), block.cuba.Dense({"threshold": 0.2}, 2, 3), precision="loihi")
    x = (torch.rand(6, 2, 2) < 0.5).float()
    delay, dense = net.blocks
    assert np.array_equal(fixed.from_network(net).spikes(x, 6)[1], dense(delay(x)).detach())


@pytest.mark.parametrize("activity", [0.02, 0.9])
def test_event_driven_and_dense_products_agree(activity):
    draw = np.random.default_rng(0)
    layer = fixed.Dense(
        (40,), fixed.Neuron(np.array(900)), weight=2 * draw.integers(-128, 128, (40, 300))
    )
    spikes = (draw.random((5, 4, 300)) < activity).astype(np.uint8)
    _, currents = fixed.run_layer(layer, spikes)
    expected = np.einsum("tnk,mk->tnm", spikes.astype(np.int64), layer.weight)
    assert np.array_equal(currents, expected * 64)


def test_current_wraps_around():
    weight = np.full((1, 600), 254)
    neuron = fixed.Neuron(np.array(131071), current_decay=np.array(0))
    layer = fixed.Dense((1,), neuron, weight=weight)
    _, currents = fixed.run_layer(layer, np.ones((3, 1, 600)))
    # 600 * 254 * 64 = 9753600 is more than 2**23 = 8388608.
    assert currents.flatten().tolist() == [-7023616, 2729984, -4293632]


@pytest.mark.parametrize("reset", fixed.RESETS)
def test_states_at_the_ends_of_their_range_are_those_of_plain_python(reset):
    draw = np.random.default_rng(0)
    neuron = fixed.Neuron(
        draw.integers(1, 131072, 30),
        draw.choice([0, 1, 4096], 30),
        draw.choice([0, 1, 4096], 30),
        draw.integers(-(2**23) + 1, 2**23, 30),
        reset,
    )
    weight = np.where(np.arange(300) < 150, 254, -256) * np.ones((30, 1), int)
    layer = fixed.Dense((30,), neuron, None, weight, draw.choice([-4096, 4095], 30))
    net = fixed.Network([fixed.Input((300,)), layer])
    # Now one sign, now the other, for several steps: sums of up to 38,400 times 64.
    x = (np.arange(300) < 150) == (np.arange(40) % 13 < 6)[:, None]
    expected, _ = chip.simulate(net, x.astype(int).tolist(), 40)
    found = net.spikes(x[:, None], 40)[1]
    assert found[:, 0].tolist() == expected[1]
    assert 0.1 < found.mean() < 0.9


def test_what_integer_layers_cannot_express_is_refused():
    neuron = {"threshold": 1.0}
    dense = block.cuba.Dense(neuron, 4, 3)
    with pytest.raises(ss.SpikestrapError, match=r'precision="loihi".*got precision=\'float\''):
        fixed.from_network(ss.Network(dense, time_steps=4))
    with pytest.raises(ss.SpikestrapError, match="expected one as the first block, got Dense"):
        fixed.from_network(
            ss.Network(block.cuba.Dense(neuron, 4, 3), time_steps=4, precision="loihi")
        )
    conv = ss.Network(
        block.cuba.Input(neuron), block.cuba.Conv(neuron, 1, 2, 3), time_steps=4, precision="loihi"
    )
    with pytest.raises(ss.SpikestrapError, match=r"pass input_shape"):
        fixed.from_network(conv)
    with pytest.raises(ss.SpikestrapError, match=r"block 1 \(Conv\): .*expected images"):
        fixed.from_network(conv, (9,))
    mixed = ss.Network(
        block.cuba.Input(neuron, delay_shift=True), block.cuba.Dense(neuron, 4, 2),
        time_steps=4, precision="loihi",
    )  # fmt: skip
    with pytest.raises(ss.SpikestrapError, match="delay_shift must be the same"):
        fixed.from_network(mixed)


def test_spikes_come_in_without_an_input_block():
    net = ss.Network(block.cuba.Dense({"threshold": 0.2}, 4, 3), precision="loihi")
    x = (torch.rand(5, 2, 4) < 0.5).float()
    expected, _ = spikes_of(net, x)
    assert np.array_equal(fixed.from_network(net).spikes(x, 5)[1], expected[0])
    with pytest.raises(ss.SpikestrapError, match="0 or 1, as input, got values from 0 to 3"):
        fixed.from_network(net).run(3 * x, 5)


def test_spikes_have_their_steps_with_them():
    spikes = np.random.default_rng(0).integers(0, 2, (5, 3, 4))
    assert np.array_equal(EVENTS.run(spikes).logits, EVENTS.run(spikes, 5).logits)


@pytest.mark.parametrize(
    ("x", "steps", "message"),
    [
        (np.zeros((2, 4)), None, r"holds no number .* expected one, as in run\(x, time_steps\)"),
        (np.zeros((2, 3)), 4, r"expected an input \(N, ...\) of 4 features"),
        (np.full((2, 4), np.nan), 4, "NaN or inf"),
        (np.zeros((2, 4)), 0, "time_steps must be a whole number >= 1, got 0"),
    ],
)
def test_bad_input_is_refused(x, steps, message):
    net = fixed.Network([fixed.Input((4,), fixed.Neuron(np.array(64)))])
    with pytest.raises(ss.SpikestrapError, match=message):
        net.run(x, steps)


def test_layers_that_do_not_fit_are_refused():
    neuron = fixed.Neuron(np.array(64))
    entry = fixed.Input((4,), neuron)
    for layers, message in (
        ([fixed.Dense((1,), weight=np.ones((1, 4)))], "expected an Input as first layer"),
        ([entry, fixed.Dense((1,), weight=np.ones((1, 5)))], r"layer 1 \(Dense\): weight takes 5"),
        ([entry, fixed.Dense((1,), weight=np.ones((1, 4))), entry], "only the last may lack"),
        ([entry, fixed.Flatten((5,))], "its output is"),
    ):
        with pytest.raises(ss.SpikestrapError, match=message):
            fixed.Network(layers)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fixed.Neuron(np.array(0)), "threshold: expected numbers from 1 to 131071, got 0"),
        (lambda: fixed.Neuron(np.array(64.5)), "threshold: expected whole numbers"),
        (lambda: fixed.Neuron(np.array(64), reset="soft"), "reset must be one of"),
        (
            lambda: fixed.Dense((1,), weight=np.full((1, 2), 300)),
            "weight: expected numbers from -256",
        ),
        (lambda: fixed.Dense((2,), weight=np.ones((1, 2))), "weight has 1 rows, expected 2"),
        (lambda: fixed.Dense((1,), bias=np.ones(2), weight=np.ones((1, 2))), "bias has shape"),
        (lambda: fixed.Input((0,)), "shape must be"),
        (lambda: fixed.Input((2**20, 2**20, 2**20)), "shape must be"),
        (lambda: fixed.Input((3,), delay=np.arange(2)), "expected one or 3, one a channel"),
        (
            lambda: fixed.Conv((2, 1, 1), weight=np.ones((2, 1, 1, 1)), groups=3),
            "groups must divide",
        ),
    ],
)
def test_bad_layers_are_refused(make, message):
    with pytest.raises(ss.SpikestrapError, match=message):
        make()


HELD = fixed.Network([fixed.Input((4,), fixed.Neuron(np.array(64)))], time_steps=4)
EVENTS = fixed.Network([fixed.Input((4,)), fixed.Dense((1,), weight=np.ones((1, 4)))])


@pytest.mark.parametrize(
    ("chip", "x", "message"),
    [
        (HELD, np.full((2, 4), 255, np.uint8), "floating-point input, got uint8; scale integer"),
        (HELD, torch.ones(2, 4, dtype=torch.int64), "floating-point input, got int64"),
        (HELD, np.full((2, 4), "a"), "floating-point input, got <U1"),
        (HELD, np.ones((0, 4)), "the input is empty"),
        (EVENTS, np.full((4, 2, 4), "a"), "expected numbers as input, got <U1"),
        (EVENTS, np.ones((4, 0, 4)), "the input is empty"),
    ],
)
def test_inputs_of_another_type_or_of_no_sample_are_refused(chip, x, message):
    with pytest.raises(ss.SpikestrapError, match=message):
        chip.run(x, 4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_comes_in_as_what_it_holds(dtype):
    x = torch.rand(3, 4).to(dtype)
    assert np.array_equal(HELD.run(x).logits, HELD.run(x.float()).logits)
    spikes = torch.randint(2, (5, 3, 4))
    assert np.array_equal(EVENTS.run(spikes.to(dtype), 5).logits, EVENTS.run(spikes, 5).logits)


def test_numpys_whole_numbers_are_steps_and_a_bool_is_none():
    x = torch.rand(3, 4)
    found = HELD.run(x, np.int64(6), reset_interval=np.int64(2))
    assert np.array_equal(found.logits, HELD.run(x, 6, reset_interval=2).logits)
    for steps, message in (({"time_steps": True}, "time_steps"), ({"reset_interval": True}, "res")):
        with pytest.raises(ss.SpikestrapError, match=f"{message}.* whole number >= 1, got True"):
            HELD.run(x, **steps)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_changes_nothing_on_the_chip_or_in_training_precision(dtype):
    neuron = {"threshold": 200.0, "voltage_decay": 0.9}
    net = ss.Network(
        block.cuba.Input({"threshold": 0.2}, 4.0),
        block.cuba.Conv(neuron, 2, 8, 3, weight_scale=20.0),
        block.AvgPool(2),
        block.Flatten(),
        block.cuba.Dense({**neuron, "norm": "batch"}, 32, 300, weight_scale=20.0),
        block.cuba.Affine(None, 300, 10),
        time_steps=8,
        precision="loihi",
    )
    x = torch.rand(20, 2, 6, 6)
    net(x)
    net.eval()
    chip = fixed.from_network(net, (2, 6, 6))
    expected = chip.run(x)
    assert 0.05 < expected.event_rate < 0.95
    with torch.autocast("cpu", dtype):
        assert np.array_equal(chip.run(x).logits, expected.logits)
        assert np.array_equal(net(x).detach().numpy(), expected.logits.astype(np.float32))
        net.train()(x.to(dtype)).sum().backward()
        assert net.to(dtype)(x).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("norm", [None, "batch", "mean_only"])
def test_a_network_in_half_precision_fires_the_chips_spikes(norm, dtype):
    neuron = {"threshold": 12.0, "voltage_decay": 0.1, "norm": norm}
    net = ss.Network(
        block.cuba.Input({"threshold": 0.7}, 0.9, 0.3),
        block.cuba.Conv({**neuron, "threshold": 4.0}, 2, 8, 3, weight_scale=20.0),
        block.AvgPool(2),
        block.Flatten(),
        block.cuba.Dense(neuron, 32, 300, weight_scale=60.0),
        block.cuba.Recurrent({"threshold": 12.0}, 300, 200, weight_scale=60.0),
        block.cuba.Affine(None, 200, 10, weight_scale=20.0),
        time_steps=5,
        precision="loihi",
    ).to(dtype)
    x = torch.rand(20, 2, 6, 6).to(dtype)
    trained = net.train()(x)
    assert trained.dtype is dtype
    trained.sum().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())
    net.eval()
    chip = fixed.from_network(net, (2, 6, 6))
    fired = []
    for module in net.blocks:
        if isinstance(module, block.Block):
            module.register_forward_hook(lambda module, args, spikes: fired.append(spikes.detach()))
    logits = net(x).detach()
    assert len(fired) == 4
    for ours, theirs in zip(fired, chip.spikes(x).values(), strict=True):
        assert 0.05 < theirs.mean() < 0.95
        assert np.array_equal(ours.float(), theirs)
    # Rounded once, to the nearest half.
    exact = torch.from_numpy(chip.run(x).logits)
    torch.testing.assert_close(
        logits.double(), exact, rtol=0.501 * torch.finfo(dtype).eps, atol=1e-5
    )


def test_a_wide_pooling_in_half_precision_sums_up_exactly():
    net = ss.Network(
        block.cuba.Input({"threshold": 0.1}),
        block.AvgPool(24, weight=256.0),
        block.Flatten(),
        block.cuba.Dense({"threshold": 400.0, "reset": "subtract"}, 2, 200, weight_scale=2.0),
        block.cuba.Affine(None, 200, 3),
        time_steps=8,
        precision="loihi",
    ).bfloat16()
    x = torch.rand(20, 2, 24, 24).bfloat16()
    x[..., 20:, :] *= torch.rand(20, 1, 1, 1).bfloat16()  # some fire early, some late
    fired = []
    net.blocks[3].register_forward_hook(lambda module, args, spikes: fired.append(spikes.detach()))
    assert net(x).dtype is torch.bfloat16
    theirs = fixed.from_network(net, (2, 24, 24)).spikes(x)
    assert theirs[0].sum((3, 4)).max() > 256
    assert 0.02 < theirs[2].mean() < 0.98
    assert np.array_equal(fired[0].float(), theirs[2])


def test_padding_in_words():
    def network(**options):
        conv = block.cuba.Conv({"threshold": 0.3}, 2, 3, weight_scale=4.0, **options)
        entry = block.cuba.Input({"threshold": 0.3}, 2.0)
        return ss.Network(entry, conv, time_steps=4, precision="loihi")

    x = torch.rand(3, 2, 6, 6)
    for net in (
        network(kernel_size=(3, 1), padding="same"),
        network(kernel_size=2, padding="same", dilation=2),
        network(kernel_size=2, padding="valid"),
    ):
        found = fixed.from_network(net, (2, 6, 6)).run(x).logits
        assert found == pytest.approx(net(x).detach().flatten(1).numpy(), abs=1e-6)
    with pytest.raises(ss.SpikestrapError, match=r"block 1 .Conv.: a chip pads both sides alike"):
        fixed.from_network(network(kernel_size=2, padding="same"), (2, 6, 6))


def test_a_chip_holds_what_its_input_block_gets():
    net = ss.Network(
        block.cuba.Input({"threshold": 1.0}), block.cuba.Affine(None, 4, 2), precision="loihi"
    )
    with pytest.raises(ss.SpikestrapError, match="set its time_steps, or leave the block out"):
        fixed.from_network(net)


@pytest.mark.parametrize("shape", [6, (2, 3), (0,), "abc"])
def test_what_is_no_shape_of_an_input(shape):
    net = ss.Network(block.cuba.Dense({"threshold": 1.0}, 6, 2), precision="loihi")
    for convert in (fixed.from_network, lambda net, s: fixed.layer_of(net.blocks[0], s)):
        with pytest.raises(ss.SpikestrapError, match=r"input_shape must be .C,. or"):
            convert(net, shape)
