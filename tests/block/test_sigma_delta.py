import copy

import pytest
import torch

import spikestrap as ss
from spikestrap import Mode, SpikestrapError, hold
from spikestrap.block import sigma_delta

NEURON = {"threshold": 1e-4, "activation": "relu"}


def test_a_network_is_an_ordinary_one_that_sends_changes():
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        sigma_delta.Input({"threshold": 1e-4}),
        sigma_delta.Conv(NEURON, 2, 4, 3),
        ss.block.Flatten(),
        sigma_delta.Dense({**NEURON, "bias": 0.1}, 36, 5),
    )
    video = torch.rand(6, 3, 2, 5, 5)
    sent = net(video).cumsum(0)
    with torch.no_grad():
        conv, dense = net[1].synapse.weight, net[3].synapse.weight
        a = torch.relu(torch.nn.functional.conv2d(video.flatten(0, 1), conv)).flatten(1)
        expected = torch.relu(a @ dense.T + 0.1).unflatten(0, (6, 3))
    torch.testing.assert_close(sent, expected, rtol=0, atol=5e-3)


def test_a_still_picture_costs_nothing_after_the_first_step():
    block = sigma_delta.Input({"threshold": 0.1})
    out = block(hold(torch.rand(3, 8) + 1, 5))
    assert (out[0] != 0).all()
    assert (out[1:] == 0).all()


def test_event_rate_counts_changes_whatever_their_sign():
    torch.manual_seed(0)
    x = torch.randn(10, 4, 20) * 0.5
    for block in (
        sigma_delta.Input({"threshold": 0.3}, count_log=True),
        sigma_delta.Dense({**NEURON, "threshold": 0.3}, 20, 30, count_log=True, weight_scale=2.0),
    ):
        y, rate = block(x)
        assert rate == (y != 0).float().mean()
        assert (y < 0).any()


def test_trains_directly():
    net = ss.Network(
        sigma_delta.Input({"threshold": 0.05}),
        sigma_delta.Dense({"threshold": 0.05}, 6, 5),
        sigma_delta.Affine({"threshold": 0.05}, 5, 3),
        time_steps=4,
    )
    net(torch.rand(8, 6), Mode.SNN).sum().backward()
    assert all((p.grad != 0).any() for p in net.parameters())


@pytest.mark.parametrize("mode", [Mode.SAMPLE, Mode.FIT, Mode.ANN])
def test_refuses_to_be_bootstrapped(mode):
    for block in (sigma_delta.Input({"threshold": 0.1}), sigma_delta.Dense(NEURON, 6, 6)):
        with pytest.raises(SpikestrapError, match="cannot be bootstrapped: it sends signed chan"):
            block(torch.rand(4, 2, 6), mode=mode)


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: sigma_delta.Dense(NEURON, 6, 5, bias=True), "Dense: bias"),
        (lambda: sigma_delta.Conv(NEURON, 2, 4, 3, bias=True), "Conv: bias"),
        (lambda: sigma_delta.ConvT(NEURON, 2, 4, 3, bias=True), "ConvT: bias"),
    ],
)
def test_refuses_constants(make, what):
    with pytest.raises(SpikestrapError, match=f"{what} would be summed up"):
        make()


def normed(norm, **options):
    """A block with a norm, its bias and running statistics not those of the start."""
    torch.manual_seed(0)
    options = {"threshold": 0.05, "bias": 0.125, "norm": norm, **options}
    block = sigma_delta.Conv(options, 2, 4, 3)
    own = block.unit.neuron.norm
    with torch.no_grad():
        own.bias.uniform_(-0.5, 0.5)
        own.running_mean.uniform_(-0.5, 0.5)
    return block, own


def by_hand(block, norm, x):
    """What is sent of the activation of the normalized sums."""
    neuron = block.unit.neuron.neuron
    sums = block.synapse(x).cumsum(0)
    activated = torch.relu(norm(sums) + neuron.bias)
    return ss.neuron.Delta(float(neuron.threshold)).to(activated.dtype)(activated)


@pytest.mark.parametrize("norm", ["batch", "mean_only"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("held", [True, False])
def test_a_norm_is_that_of_the_sums(norm, training, held):
    block, own = normed(norm)
    block = block.double().train(training)
    leaf = torch.randn(*([] if held else [6]), 3, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    x = hold(leaf, 6) if held else leaf
    twin = copy.deepcopy(own)
    with ss.kernel.use_backend("reference"):
        expected = by_hand(block, twin, x)
    found = block(x)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(own.running_mean, twin.running_mean)
    weight = torch.randn_like(found)
    inputs = [leaf, block.synapse.layer.weight]
    of = torch.autograd.grad((found * weight).sum(), [*inputs, *own.parameters()])
    by = torch.autograd.grad((expected * weight).sum(), [*inputs, *twin.parameters()])
    torch.testing.assert_close(of, by)


def test_a_normed_block_goes_on_from_a_state_in_evaluation_alone():
    block, _ = normed("batch")
    neuron = block.unit.neuron.eval()
    z = torch.randn(6, 3, 4, 2, 2)
    whole = neuron(z)
    first, state = neuron(z[:2], return_state=True)
    torch.testing.assert_close(torch.cat([first, neuron(z[2:], state)]), whole)
    state, steps = neuron.init_state(z[0]), []
    for part in z:
        out, state = neuron.step(part, state)
        steps.append(out)
    torch.testing.assert_close(torch.stack(steps), whole)
    with pytest.raises(SpikestrapError, match="expected no state"):
        neuron.train()(z, state)


def test_a_normed_network_is_kept_frozen_and_refused_by_the_exports(tmp_path):
    def network():
        return ss.Network(
            sigma_delta.Input({"threshold": 0.05}),
            sigma_delta.Dense({"threshold": 0.05, "norm": "batch"}, 6, 5),
            sigma_delta.Affine(None, 5, 3),
            time_steps=None,
        )

    net, x = network(), torch.rand(7, 4, 6)
    net(x)
    net.eval()
    twin = network().eval()
    twin.load_state_dict(net.state_dict())
    assert torch.equal(twin(x), net(x))
    torch.testing.assert_close(net.freeze()(x), net(x))
    for suffix, reason in (("net", "precision"), ("nir", "Delta"), ("onnx", "Delta")):
        with pytest.raises(SpikestrapError, match=reason):
            ss.save(net, tmp_path / f"net.{suffix}", input_shape=(6,))
    alone = ss.Network(net.blocks[1], time_steps=None)
    for suffix in ("nir", "onnx"):
        with pytest.raises(SpikestrapError, match="NormedSums"):
            ss.save(alone, tmp_path / f"net.{suffix}", input_shape=(6,))


def test_a_norm_that_cannot_be_bootstrapped_keeps_its_statistics():
    block, own = normed("mean_only")
    before = own.running_mean.clone()
    for mode in (Mode.SAMPLE, Mode.FIT, Mode.ANN):
        with pytest.raises(SpikestrapError, match="cannot be bootstrapped: it sends signed"):
            block(torch.rand(4, 2, 2, 5, 5), mode=mode)
    assert torch.equal(own.running_mean, before)


def test_a_norm_in_training_wants_more_than_one_value():
    block = sigma_delta.Dense({**NEURON, "norm": "batch"}, 3, 4)
    with pytest.raises(SpikestrapError, match="more than one value a channel"):
        block(torch.rand(4, 1, 3))
