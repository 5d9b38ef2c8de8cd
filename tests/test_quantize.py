import copy

import pytest
import torch
from tests.lora import LowRank
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

import spikestrap as ss
from spikestrap import block

NEURON = {"threshold": 1.0, "v_init": 0.5, "reset": "subtract"}


def layers(norm, pool=True):
    return (
        block.cuba.Conv({**NEURON, "norm": norm}, 1, 4, 3, padding=1, weight_scale=2.0),
        *([block.AvgPool(2)] if pool else []),
        block.Flatten(),
        block.cuba.Dense({**NEURON, "norm": norm}, 4 * (9 if pool else 36), 8, weight_norm=True),
        block.cuba.Affine(None, 8, 3),
    )


@pytest.mark.parametrize("norm", [None, "batch", "mean_only"])
def test_training_is_near_the_float_network_with_the_same_norms(norm):
    made = layers(norm)
    plain = ss.Network(*copy.deepcopy(made), time_steps=4)
    quantized = ss.Network(*made, time_steps=4, precision="loihi")
    x = torch.rand(16, 1, 6, 6)
    for mode in (ss.Mode.SAMPLE, ss.Mode.FIT, ss.Mode.ANN):
        found, expected = quantized(x, mode), plain(x, mode)
        assert (found - expected).abs().max() < 0.3 * (1 + expected.abs().max())
        found.sum().backward()
    assert all(p.grad is not None for p in quantized.parameters())
    if norm:
        ours, theirs = quantized.blocks[0].norm, plain.blocks[0].norm
        torch.testing.assert_close(ours.running_mean, theirs.running_mean)
        assert ours.running_mean.abs().max() > 0


def test_currents_are_whole_64ths_with_norm_and_pooling():
    net = ss.Network(*layers("batch"), time_steps=4, precision="loihi").train()
    x = (torch.rand(4, 8, 1, 6, 6) < 0.5).float()
    net.time_steps = None
    seen = []
    for module in net.blocks:
        if isinstance(module, block.Block):
            module.unit.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    net(x)
    assert len(seen) == 2
    assert all(torch.equal(z * 64, (z * 64).round()) for z in seen)


def test_state_dict_has_the_names_of_the_float_network():
    made = layers("batch")
    plain = ss.Network(*copy.deepcopy(made), time_steps=4)
    quantized = ss.Network(*made, time_steps=4, precision="loihi")
    quantized.load_state_dict(plain.state_dict())


def with_bias(**neuron):
    return block.cuba.Dense({"threshold": 1.0, **neuron}, 4, 2, bias=True)


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([with_bias(current_decay=0.5)], r"block 0 \(Dense\): .*current_decay must be 1 and fixed"),
        ([with_bias(learnable=("current_decay",))], "current_decay must be 1 and fixed"),
        ([block.cuba.ConvT(NEURON, 1, 1, 2)], "knows no transposed convolution"),
        ([block.Upsample(2)], r"block 0 \(Upsample\): the chip's precision knows"),
        ([block.AvgPool(2)], r"block 0 \(AvgPool\): expected a block with weights behind it"),
        (
            [block.AvgPool((2, 3), 2), block.cuba.Conv(NEURON, 1, 1, 2)],
            r"block 0 \(AvgPool\): AvgPool: .*stride of at least the window \(2, 3\), got \(2, 2\)",
        ),
    ],
)
def test_what_the_chip_cannot_do_is_refused(blocks, message):
    with pytest.raises(ss.SpikestrapError, match=message):
        ss.Network(*blocks, time_steps=4, precision="loihi")


def test_an_unknown_precision_is_refused():
    with pytest.raises(
        ss.SpikestrapError, match="precision must be one of float, loihi; got 'int'"
    ):
        ss.Network(block.Flatten(), time_steps=4, precision="int")


def of_layers(conv, dense):
    net = ss.Network(*layers("batch", pool=False), time_steps=4, precision="loihi")
    net.blocks[0].synapse.layer, net.blocks[3].synapse.layer = conv, dense
    return net


@pytest.mark.parametrize(
    ("conv", "dense", "message"),
    [
        (
            lambda: prune.l1_unstructured(nn.Conv2d(1, 4, 3, padding=1), "weight", amount=0.5),
            lambda: nn.Linear(8, 3),
            r"block 0 \(Conv\): .* a hook sets the weight or bias of Conv2d .*\.parametrize or",
        ),
        (
            lambda: nn.Conv2d(1, 4, 3, padding=1),
            lambda: LowRank(8, 3),
            r"block 3 \(Affine\): .* LowRank has a forward of its own; expected a parametrization",
        ),
        (
            lambda: nn.Conv2d(1, 4, 3, padding=1, padding_mode="reflect"),
            lambda: nn.Linear(8, 3),
            r"block 0 \(Conv\): .* Conv2d pads with 'reflect', not with zeros; expected",
        ),
    ],
)
def test_layers_that_do_more_than_their_weights_say_are_refused(conv, dense, message):
    net, x = of_layers(conv(), dense()), torch.rand(16, 1, 6, 6)
    for run in (lambda: net.train()(x), lambda: net.eval()(x), net.freeze):
        with pytest.raises(ss.SpikestrapError, match=message):
            run()


class Added(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.down = nn.Parameter(torch.randn(2, inputs))
        self.up = nn.Parameter(torch.randn(outputs, 2))

    def forward(self, weight):
        return weight + self.up @ self.down


def test_parametrizations_train_and_hooks_may_look_on():
    conv, dense = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(8, 3)
    parametrizations.spectral_norm(conv)
    parametrize.register_parametrization(dense, "weight", Added(8, 3))
    for layer in (conv, dense):
        layer.register_forward_pre_hook(lambda module, args: None)
        layer.register_forward_hook(lambda module, args, z: None)
    net, x = of_layers(conv, dense), (torch.rand(16, 1, 6, 6) < 0.5).float()
    for mode in (ss.Mode.SAMPLE, ss.Mode.FIT, ss.Mode.ANN, ss.Mode.ANN):
        net.zero_grad()
        net(x, mode).square().sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    assert torch.allclose(net.freeze()(x), net.eval()(x, ss.Mode.SNN), atol=1e-6)


def fitted(x):
    net = ss.Network(*layers("batch"), time_steps=4, precision="loihi")
    for mode in (ss.Mode.SAMPLE, ss.Mode.FIT):
        net(x, mode)
    return net.eval()


@pytest.mark.parametrize(
    ("number", "made", "name"),
    [
        (4, lambda: block.cuba.Affine(None, 8, 5), "Affine"),
        (3, lambda: block.cuba.Dense(NEURON, 36, 8), "Dense"),
        (1, lambda: block.AvgPool(2), "AvgPool"),
    ],
)
def test_a_block_put_in_later_is_refused(number, made, name):
    x = torch.rand(16, 1, 6, 6)
    net = fitted(x)
    net.blocks[number] = made()
    runs = (lambda: net(x), lambda: net(x, ss.Mode.ANN), net.freeze, lambda: ss.cost(net, x))
    for run in (*runs, lambda: ss.fixed.from_network(net, (1, 6, 6))):
        with pytest.raises(ss.SpikestrapError, match=rf"block {number} \({name}\) was put in"):
            run()


def test_a_new_network_of_its_blocks_goes_on_where_it_was():
    x = torch.rand(16, 1, 6, 6)
    net = fitted(x)
    before = net(x, ss.Mode.ANN), net(x, ss.Mode.SNN)
    kept = copy.deepcopy(net.blocks[:-1].state_dict())
    again = ss.Network(*net.blocks, time_steps=4, precision="loihi")
    assert torch.equal(again(x, ss.Mode.ANN), before[0])
    assert torch.equal(again(x, ss.Mode.SNN), before[1])
    other = ss.Network(
        *net.blocks[:-1], block.cuba.Affine(None, 8, 5), time_steps=4, precision="loihi"
    )
    after = other.blocks[:-1].state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in after.items())
    for mode in ss.Mode:
        assert other(x, mode).shape == (16, 5)


def test_a_wrapped_block_is_still_at_the_chips_precision():
    class Wrapped(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x, mode=ss.Mode.SNN):
            return self.inner(x, mode=mode)

    x = torch.rand(16, 1, 6, 6)
    net = fitted(x)
    before = net(x)
    net.blocks[3] = Wrapped(net.blocks[3])
    assert torch.equal(net(x), before)
