"""lava-dl's blocks against those of spikestrap, time first."""

import copy
import pickle

import h5py
import pytest
import torch
from tests.lava_dl.cases import MEAN_ONLY, NEURON, pair, spikes

import spikestrap as ss
import spikestrap.lava_dl.bootstrap as bootstrap
import spikestrap.lava_dl.slayer as slayer
from spikestrap import Mode
from spikestrap.lava_dl import to_network

cuba, direct = bootstrap.block.cuba, slayer.block.cuba
LEAKS = {**NEURON, "current_decay": 0.25}
OURS = {**NEURON, "tau_grad": 100.0, "scale_grad": 0.1}


CASES = {
    "Dense": (
        lambda: ss.block.cuba.Dense(OURS, 12, 7, weight_scale=4.0),
        lambda: cuba.Dense(NEURON, 12, 7, 4),
        (12,),
    ),
    "Conv": (
        lambda: ss.block.cuba.Conv(OURS, 2, 3, 3, 1, 1, weight_scale=4.0, weight_norm=True),
        lambda: cuba.Conv(NEURON, 2, 3, 3, padding=1, weight_scale=4, weight_norm=True),
        (2, 6, 4),
    ),
    "Pool": (
        lambda: ss.block.cuba.Pool(OURS, 2, weight=0.5),
        lambda: cuba.Pool(NEURON, 2, weight_scale=0.5),
        (2, 6, 4),
    ),
}


def integers(weight):
    return 2 * (32 * weight.detach()).round().clamp(-128, 127).long()


def decayed(value, decay):
    return value.sign() * (value.abs() * (4096 - decay) // 4096)


@pytest.mark.parametrize("name", CASES)
def test_is_the_block_time_first(name):
    ours, theirs, shape = CASES[name]
    ours, theirs = pair(ours(), theirs())
    x = spikes(16, 50, *shape)
    last = x.movedim(0, -1).contiguous()
    for mode in (ss.Mode.SNN, ss.Mode.SAMPLE):
        assert torch.equal(theirs(last, mode=mode).movedim(-1, 0), ours(x, mode=mode))
    rates = ours(x.mean(0), mode=ss.Mode.FIT)
    assert torch.equal(theirs(last, mode=ss.Mode.FIT).squeeze(-1), rates)
    for given in (last, last.mean(-1, keepdim=True)):  # ANN is the mode unless told otherwise
        assert torch.equal(theirs(given).squeeze(-1), rates)
    assert theirs.shape == ours(x, mode=ss.Mode.SNN).shape[2:]


def test_a_norms_mean_is_in_8_bits_on_the_chip(tmp_path):
    block = direct.Dense({**NEURON, "norm": MEAN_ONLY}, 12, 7, 4, delay_shift=False)
    x, state = spikes(5, 12, 16), torch.linspace(-5, 5, 7)
    block.load_state_dict({**block.state_dict(), "block.norm.running_mean": state})
    weight, mean = integers(block.synapse.weight), integers(state)
    v, expected = torch.zeros(5, 7, dtype=torch.long), []
    for step in x.long().unbind(-1):
        v = decayed(v, 123) + 64 * (step @ weight.T - mean)
        expected.append((v > 80 * 64).float())
        v = v * (1 - expected[-1].long())
    assert torch.equal(block.eval()(x), torch.stack(expected, -1))
    with h5py.File(tmp_path / "network.net", "w") as file:
        block.export_hdf5(file)
        assert file["bias"][()].tolist() == (-mean).tolist()
    block.train()(x).sum().backward()
    assert block.block.norm.bias.grad.any()  # straight through


def test_an_image_held_over_time_costs_one_step():
    x = slayer.utils.time.replicate(torch.rand(5, 1, 4, 3), 16)
    x = x.reshape(5, -1, 16)
    block = cuba.Input(NEURON, weight=1, bias=0)
    seen = []
    block.block.synapse.register_forward_hook(lambda m, args, out: seen.append(args))
    block.block.unit.register_forward_hook(lambda m, args, out: seen.append(args[0].shape))
    assert block(x, mode=ss.Mode.SNN).shape == (5, 12, 16)
    assert seen == [(1, 5, 12)]


def test_whole_numbers_do_not_wrap_in_an_input():
    x = torch.tensor([0, 64, 255], dtype=torch.uint8).view(1, 3, 1).expand(1, 3, 8)
    block = cuba.Input({**NEURON, "threshold": 200.0}, weight=1, bias=0)
    assert torch.equal(block(x, mode=ss.Mode.SNN), block(x.float(), mode=ss.Mode.SNN))


def test_input_is_an_affine_map_on_the_grid():
    block = cuba.Input({**NEURON, "threshold": 1.0}, weight=1.5, bias=-0.25)
    assert block.weight.item() == 1.5
    assert block.bias.item() == -0.25
    x = torch.tensor([-1.0, 0.25, 0.5, 1.0]).view(1, 4, 1)
    z = torch.tensor([-1.75, 0.125, 0.5, 1.25])  # worked by hand
    neuron = ss.neuron.ChipCUBA(ss.neuron.CUBA(1.0, 1.0, 0.03))
    expected = neuron(z.expand(8, 1, 4)).movedim(0, -1)
    assert torch.equal(block(x.expand(1, 4, 8), mode=ss.Mode.SNN), expected)
    assert [p.requires_grad for p in cuba.Input(NEURON).parameters()] == [False, False]


def test_input_in_floats_where_asked_for():
    leaks = {"threshold": 0.1, "current_decay": 0.9, "voltage_decay": 0.9}
    with pytest.raises(ss.SpikestrapError, match="current_decay must be 1"):
        direct.Input(leaks)
    block = direct.Input(leaks, weight=0.7, bias=0.1, delay_shift=False, pre_hook_fx=None)
    x = torch.rand(5, 4, 8)
    expected = ss.neuron.CUBA(**leaks)((0.7 * x + 0.1).movedim(-1, 0)).movedim(0, -1)
    assert torch.equal(block(x), expected)
    assert expected.any()
    with pytest.raises(ss.SpikestrapError, match="pre_hook_fx must be left out"):
        direct.Input(leaks, pre_hook_fx=torch.round)


@pytest.mark.parametrize("given", [{"weight": 1.5}, {"bias": -0.25}])
def test_input_with_weight_or_bias_alone_has_the_other_at_what_does_nothing(given):
    alone, both = (
        cuba.Input(NEURON, **given),
        cuba.Input(NEURON, **{"weight": 1, "bias": 0, **given}),
    )
    x = 2 * torch.rand(5, 4, 8) - 1
    assert torch.equal(alone(x, mode=Mode.SNN), both(x, mode=Mode.SNN))
    assert [p.requires_grad for p in alone.parameters()] == [True, True]


@pytest.mark.parametrize(
    "make",
    [
        lambda: cuba.Dense(NEURON, 12, 7, 4, count_log=True),
        lambda: direct.Dense(NEURON, 12, 7, 4),
        lambda: cuba.Affine(NEURON, 12, 7),
        lambda: slayer.block.sigma_delta.Output({"threshold": 0.1}, 12, 7),
    ],
)
def test_vectors_may_be_images_of_one_pixel(make):
    block, x = make(), spikes(5, 12, 8)
    vectors, images = (block(y, mode=Mode.SNN) for y in (x, x.view(5, 12, 1, 1, 8)))
    if block.count_log:
        (vectors, rate), (images, same) = vectors, images
        assert rate == same
    assert images.shape == (5, 7, 1, 1, 8)
    assert torch.equal(images.flatten(1, 3), vectors)
    assert block.shape == (7,)
    assert block.input_shape == (12,)


def test_slayer_shifts_by_a_step_and_runs_as_snn():
    x = spikes(5, 12, 8)
    here, there = cuba.Dense(NEURON, 12, 7, 4), direct.Dense(NEURON, 12, 7, 4)
    there.load_state_dict(here.state_dict())
    y = there(x)
    assert torch.equal(y, slayer.axon.delay(here(x, mode=ss.Mode.SNN), 1))
    same = direct.Dense(NEURON, 12, 7, delay_shift=False)
    same.load_state_dict(here.state_dict())
    assert torch.equal(same(x), here(x, mode=ss.Mode.SNN))


def test_blocks_pickle_and_copy():
    block, x = cuba.Dense(NEURON, 12, 7, 4), spikes(5, 12, 8)
    for again in (pickle.loads(pickle.dumps(block)), copy.deepcopy(block)):
        assert torch.equal(again(x, mode=ss.Mode.SNN), block(x, mode=ss.Mode.SNN))


def test_event_rate():
    block = cuba.Dense(NEURON, 12, 7, 4, count_log=True)
    y, rate = block(spikes(5, 12, 8), mode=ss.Mode.SNN)
    assert rate.item() == pytest.approx(y.mean().item())
    y, rate = cuba.Flatten(count_log=True)(spikes(5, 3, 2, 2, 8))
    assert y.shape == (5, 12, 8)
    assert rate is None


def test_float_weights_where_asked_for():
    block = cuba.Dense(NEURON, 12, 7, pre_hook_fx=None)
    assert isinstance(block.neuron, ss.neuron.CUBA)
    block(spikes(5, 12, 8), mode=ss.Mode.SNN)
    with h5py.File.in_memory() as file, pytest.raises(ss.SpikestrapError, match="of floats"):
        block.export_hdf5(file)
    with pytest.raises(ss.SpikestrapError, match="pre_hook_fx"):
        cuba.Dense(NEURON, 12, 7, pre_hook_fx=torch.round)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cuba.Dense({**NEURON, "persistent_state": True}, 2, 2), "persistent_state=True"),
        (lambda: cuba.Dense({**NEURON, "shared_param": False}, 2, 2), "one value a channel"),
        (lambda: cuba.Dense({**NEURON, "norm": torch.nn.BatchNorm1d}, 2, 2), "norm must be None"),
        (
            lambda: direct.Dense({**LEAKS, "norm": MEAN_ONLY}, 2, 2, pre_hook_fx=None),
            "Dense: lava-dl norms the current, behind its decay.*current_decay must be 1 and fixed",
        ),
        (
            lambda: direct.Conv(
                {**NEURON, "norm": MEAN_ONLY, "requires_grad": True}, 2, 2, 1, pre_hook_fx=None
            ),
            "Conv: lava-dl norms the current, behind its decay",
        ),
        (
            lambda: cuba.Dense({**LEAKS, "norm": MEAN_ONLY}, 2, 2),
            "Dense: on the chip a bias joins the membrane behind the current's decay",
        ),
        (lambda: cuba.Dense({**NEURON, "dropout": torch.nn.ReLU()}, 2, 2), "dropout must be"),
        (lambda: cuba.Dense({**NEURON, "treshold": 1}, 2, 2), "did you mean 'threshold'"),
        (lambda: cuba.Dense({**NEURON, "threshold": float("nan")}, 2, 2), "threshold must be > 0"),
        (lambda: cuba.Dense({**NEURON, "tau_grad": "a"}, 2, 2), "tau_grad must be a number > 0"),
        (lambda: cuba.Dense(None, 2, 2), "expected a dict of neuron parameters, got NoneType"),
        (lambda: cuba.Dense(NEURON, (2, 2, 1), 2), "in_neurons must be a whole number"),
        (
            lambda: cuba.Dense(NEURON, 2, 2, delay=True),
            r"delay=True is not carried over \(a rate has no time.*spikestrap.block.Delay",
        ),
        (
            lambda: direct.Recurrent({**NEURON, "norm": MEAN_ONLY}, 2, 2),
            "Recurrent: norm is not carried over",
        ),
        (lambda: direct.Recurrent(None, 2, 2), "expected a dict of neuron parameters"),
        (
            lambda: direct.Recurrent(NEURON, 6, 2)(torch.zeros(3, 5, 8)),
            r"Recurrent: expected \(N, 6, T\), time last; got shape \(3, 5, 8\)",
        ),
        (lambda: direct.Pool(NEURON, 2, delay=True), "carried over .it is not told its channels"),
        (lambda: direct.Dense(NEURON, 2, 2, delay=3), "Dense: delay must be a bool, got 3"),
        (lambda: cuba.Pool(NEURON, 2, dilation=2), "dilation and weight_norm"),
        (lambda: cuba.Pool(NEURON, 2)(torch.zeros(1, 1, 3, 4, 5)), "do not tile"),
        (lambda: cuba.Dense(NEURON, 2, 2)(torch.zeros(1, 2)), "time last; got shape"),
        (
            lambda: cuba.Dense(NEURON, 64, 2)(torch.zeros(3, 63, 5)),
            r"Dense: expected \(N, 64, T\), time last; got shape \(3, 63, 5\)",
        ),
        (
            lambda: direct.Affine(NEURON, 64, 2)(torch.zeros(3, 64, 1, 2, 5)),
            r"Affine: expected \(N, 64, T\), time last; got shape \(3, 64, 1, 2, 5\)",
        ),
        (
            lambda: cuba.Conv(NEURON, 2, 2, 3)(torch.zeros(3, 1, 8, 8, 5)),
            r"Conv: expected \(N, 2, H, W, T\), time last; got shape \(3, 1, 8, 8, 5\)",
        ),
        (
            lambda: cuba.Pool(NEURON, 2)(torch.zeros(3, 8, 5)),
            r"Pool: expected \(N, C, H, W, T\), time last; got shape \(3, 8, 5\)",
        ),
        (
            lambda: direct.Dense(NEURON, 6, 2)(torch.zeros(3, 6, 5) > 0),
            "Dense: expected floating-point spikes or rates, got torch.bool",
        ),
        (
            lambda: direct.Conv(NEURON, 6, 2, 1)(torch.zeros(3, 6, 4, 4, 5, dtype=torch.int64)),
            "Conv: expected floating-point spikes or rates, got torch.int64",
        ),
        (
            lambda: direct.Dense(NEURON, 6, 2)(torch.zeros(3, 6, 5).numpy()),
            "Dense: expected a tensor, got ndarray",
        ),
        (
            lambda: direct.Input(NEURON)(torch.zeros(3, 6, 5).numpy()),
            "Input: expected a tensor, got ndarray",
        ),
        (
            lambda: direct.Dense(NEURON, 6, 2)(torch.zeros(3, 6, 5).double()),
            "Dense: expected torch.float32, as its weights are, got torch.float64",
        ),
        (
            lambda: direct.Affine(NEURON, 6, 2).double()(torch.zeros(3, 6, 5)),
            "Affine: expected torch.float64, as its weights are, got torch.float32",
        ),
        (
            lambda: direct.Conv(NEURON, 2, 2, (3, 9))(torch.zeros(3, 2, 8, 8, 5)),
            r"kernel that spans \(3, 9\) is larger than images \(8, 8\)",
        ),
        (
            lambda: direct.Pool(NEURON, 4, 2)(torch.zeros(3, 2, 2, 4, 5)),
            r"windows \(4, 4\) at stride \(2, 2\) do not tile images \(2, 4\)",
        ),
        (lambda: cuba.Dense(NEURON, 2, 2)(torch.zeros(1, 2, 1)), "ANN mode before any fit"),
        (lambda: cuba.Input(NEURON).shape, "at the first forward"),
        (lambda: cuba.Conv(NEURON, 1, 1, 3).export_hdf5(None), "run one batch first"),
        (lambda: to_network([torch.nn.Linear(1, 1)]), "layer 0: expected a block"),
        (
            lambda: to_network([direct.Affine(NEURON, 2, 2)]),
            "layer 0: Affine reads out voltages, which no block of a Network does",
        ),
        (
            lambda: to_network([slayer.block.sigma_delta.Output({"threshold": 0.1}, 2, 2)]),
            "layer 0: Output sums up over time, which no block of a Network does",
        ),
    ],
)
def test_what_is_not_there_says_so(make, message):
    with pytest.raises(ss.SpikestrapError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_a_neurons_parameters_get_a_gradient_where_it_spikes():
    learns = {**NEURON, "requires_grad": True}
    layers = torch.nn.ModuleList([bootstrap.block.cuba.Dense(learns, 8, 8, 4) for _ in range(2)])
    x = slayer.utils.time.replicate(torch.rand(16, 8), 8)

    def trained(*modes):
        y = x
        layers.zero_grad()
        for layer, mode in zip(layers, modes, strict=True):
            y = layer(y, mode=mode)
        y.square().sum().backward()
        return [layer.neuron.voltage_decay.grad is not None for layer in layers]

    assert trained(Mode.SAMPLE, Mode.SAMPLE) == [True, True]
    assert trained(Mode.FIT, Mode.FIT) == [False, False]
    assert trained(Mode.ANN, Mode.ANN) == [False, False]
    assert trained(Mode.SNN, Mode.ANN) == [True, False]
    assert trained(Mode.SNN, Mode.SNN) == [True, True]


@pytest.mark.parametrize(
    "kind", [bootstrap.block.cuba.Dense, direct.Dense, slayer.block.alif.Dense]
)
def test_a_neurons_parameters_read_as_it_runs_with_them(kind):
    own = {"threshold_step": 0.5} if kind is slayer.block.alif.Dense else {}
    block = kind({**NEURON, **own, "requires_grad": True}, 12, 7, 4)
    trained = block.neuron.voltage_decay
    x = spikes(5, 12, 8)
    for pushed, kept in [(-0.3, 0.0), (1.7, 1.0)]:
        with torch.no_grad():
            trained.fill_(pushed)
        y = block.block(x.movedim(-1, 0))
        assert block.neuron.voltage_decay is trained
        assert trained.item() == kept
        assert torch.equal(block.block(x.movedim(-1, 0)), y)
        with torch.no_grad():
            trained.fill_(pushed)
        block(x, mode=Mode.SNN)  # looked at or not, training goes on from there
        assert trained.item() == kept


def test_delay_shift_is_read_and_set():
    block, x = direct.Dense(NEURON, 12, 7, 4), spikes(5, 12, 8)
    assert block.delay_shift
    shifted = block(x)
    block.delay_shift = False
    assert not block.delay_shift
    assert torch.equal(slayer.axon.delay(block(x)), shifted)
    assert shifted.any()
    assert not cuba.Dense(NEURON, 12, 7).delay_shift


@pytest.mark.parametrize(
    ("name", "value", "instead"),
    [
        ("_threshold", 0.5, "neuron.threshold.fill_"),
        ("drop", torch.nn.Dropout(0.5), "dropout goes into the neuron dict"),
        ("norm", None, "norm goes into the neuron dict"),
        ("tau_rho", 0.1, "tau_grad goes"),
        ("persistent_state", True, "states are passed on explicitly"),
        ("graded_spike", True, "spikes are 0 or 1"),
    ],
)
@pytest.mark.parametrize("make", [direct.Dense, cuba.Dense, direct.Affine, slayer.block.alif.Dense])
def test_what_would_do_nothing_on_a_neuron_is_refused(make, name, value, instead):
    own = {"threshold_step": 0.5} if make is slayer.block.alif.Dense else {}
    block, x = make({**NEURON, **own}, 12, 7, 4), spikes(5, 12, 8)
    block.neuron.persistent_state = False  # asks for nothing
    y = block(x, mode=Mode.SNN)
    setattr(block.neuron, name, value)
    with pytest.raises(ss.SpikestrapError, match=rf"neuron\.{name}, set afterwards.*{instead}"):
        block(x, mode=Mode.SNN)
    delattr(block.neuron, name)
    assert torch.equal(block(x, mode=Mode.SNN), y)


def test_a_mask_set_afterwards_is_refused():
    for block in (cuba.Dense(NEURON, 12, 7), cuba.Affine(NEURON, 12, 7)):
        with pytest.raises(ss.SpikestrapError, match="mask is not set afterwards but given"):
            block.mask = torch.ones(7, 12)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda **o: direct.Dense(NEURON, 12, 4, 4, **o), (12,)),
        (lambda **o: direct.Conv(NEURON, 2, 4, 3, weight_scale=4, **o), (2, 5, 6)),
        (lambda **o: slayer.block.rf.Dense({"threshold": 0.1, "period": 9, "decay": 0.1}, 12, 4, 4,
            **o), (12,)),
    ],
)  # fmt: skip
def test_delays_of_slayer(make, shape):
    block, x = make(delay=True), spikes(5, *shape, 16)
    same = make()
    assert same.delay is None
    same.load_state_dict(
        {name: value for name, value in block.state_dict().items() if ".delay" not in name}
    )
    undelayed = same(x)
    assert torch.equal(block(x), undelayed)  # it starts with less than a step
    delays = torch.tensor([0.9, 1.0, 3.7, 70.0])
    with torch.no_grad():
        block.delay.delay.copy_(delays)
    steps = delays.floor().view(4, *[1] * (len(shape) - 1)).expand(undelayed.shape[1:-1])
    assert torch.equal(block(x), slayer.utils.time.shift(undelayed, steps))
    block(x).square().sum().backward()
    assert block.delay.delay.grad[:3].any()
    assert any(parameter is block.delay.delay for parameter in block.parameters())


def test_delays_set_afterwards_are_refused():
    block, x = direct.Dense(NEURON, 12, 7, 4, delay=True), spikes(5, 12, 8)
    with pytest.raises(ss.SpikestrapError, match="delay is not set afterwards but given"):
        block.delay = None
    block(x)
    block.delay = ss.block.Delay(7, 4)
    with pytest.raises(ss.SpikestrapError, match="delay is not set afterwards but given"):
        block(x)


@pytest.mark.parametrize("suffix", ["net", "nir"])
def test_delays_are_exported(suffix, tmp_path):
    neuron = {**NEURON, "threshold": 0.3}
    weights = {} if suffix == "net" else {"pre_hook_fx": None}
    options = {**weights, "weight_scale": 3, "delay": True}
    layers = torch.nn.Sequential(
        direct.Conv(neuron, 1, 3, 3, **options),
        direct.Flatten(),
        direct.Dense(neuron, 48, 5, **options),
        direct.Affine(neuron, 5, 2, dynamics=False, **weights),
    )
    with torch.no_grad():
        # netx has no delays of a convolution: below a step it sends at once.
        layers[0].delay.delay.copy_(
            torch.tensor([0.6, 0.9, 0.0] if suffix == "net" else [0.6, 2.9, 4.0])
        )
        layers[2].delay.delay.copy_(torch.tensor([3.2, 0.0, 1.9, 1.0, 5.5]))
    x = spikes(6, 1, 6, 6, 20)
    logits, first = layers(x).mean(-1), x.movedim(-1, 0)
    path = tmp_path / f"network.{suffix}"
    ss.save(to_network(layers), path, input_shape=(1, 6, 6))
    again = ss.load(path)
    found = again.run(first).logits if suffix == "net" else again(first, Mode.SNN).detach()
    torch.testing.assert_close(torch.as_tensor(found).float(), logits, atol=1e-5, rtol=0)
    assert logits.unique().numel() > 6
    if suffix == "net":
        with h5py.File(tmp_path / "block.net", "w") as file:
            layers[2].export_hdf5(file)
            assert file["delay"][()].tolist() == [3, 0, 1, 1, 5]
        torch.nn.init.constant_(layers[0].delay.delay, 1.0)
        with pytest.raises(
            ss.SpikestrapError, match="netx delays the spikes of Dense blocks alone"
        ):
            ss.save(to_network(layers), path, input_shape=(1, 6, 6))


def test_recurrent_hears_its_last_spikes():
    block, x = direct.Recurrent(LEAKS, 12, 7, 4, delay_shift=False), spikes(5, 12, 16)
    weight, back = (integers(s.weight) for s in (block.input_synapse, block.recurrent_synapse))
    u = v = s = torch.zeros(5, 7, dtype=torch.long)
    expected = []
    for step in x.long().unbind(-1):
        u = decayed(u, 1024) + 64 * (step @ weight.T + s @ back.T)
        v = decayed(v, 123) + u
        s = (v > 80 * 64).long()
        v = v * (1 - s)
        expected.append(s.float())
    expected = torch.stack(expected, -1)
    assert torch.equal(block(x), expected)
    assert torch.equal(block(x), expected)  # each run from rest
    assert block(x.view(5, 12, 1, 1, 16)).shape == (5, 7, 1, 1, 16)
    late = direct.Recurrent(LEAKS, 12, 7, delay=True)
    late.load_state_dict({**late.state_dict(), **block.state_dict()})
    with torch.no_grad():
        late.delay.delay.fill_(2.5)
    assert torch.equal(late(x), slayer.axon.delay(expected, 3))


def test_recurrent_trains_or_holds_its_weights():
    for learns in (True, False):
        block = direct.Recurrent(LEAKS, 12, 7, 4, True, requires_grad=learns)
        block(spikes(5, 12, 16)).sum().backward()
        assert block.input_synapse.grad_norm > 0
        assert (block.recurrent_synapse.grad_norm > 0) is learns
    block.neuron.drop = torch.nn.Dropout(0.5)
    with pytest.raises(ss.SpikestrapError, match=r"Recurrent: neuron\.drop, set afterwards"):
        block(spikes(5, 12, 16))
    assert slayer.block.alif.Recurrent({**LEAKS, "threshold_step": 0.5}, 12, 7)(
        spikes(5, 12, 16)
    ).shape == (5, 7, 16)


def test_recurrent_is_exported(tmp_path):
    layers = torch.nn.Sequential(
        direct.Recurrent(LEAKS, 12, 7, 4, delay=True), direct.Affine(NEURON, 7, 2, dynamics=False)
    )
    with torch.no_grad():
        layers[0].delay.delay.copy_(torch.arange(7) / 8)
    x = spikes(5, 12, 16)
    ss.save(to_network(layers), tmp_path / "network.net")
    logits = ss.load(tmp_path / "network.net").run(x.movedim(-1, 0)).logits
    torch.testing.assert_close(torch.from_numpy(logits).float(), layers(x).mean(-1))
    with h5py.File(tmp_path / "block.net", "w") as file:
        layers[0].export_hdf5(file)
        back = integers(layers[0].recurrent_synapse.weight)
        assert file["weight_rec"][()].tolist() == back.tolist()
        assert "delay" not in file
    torch.nn.init.constant_(layers[0].delay.delay, 1.0)
    with pytest.raises(ss.SpikestrapError, match="hears of itself as well"):
        ss.save(to_network(layers), tmp_path / "network.net")
