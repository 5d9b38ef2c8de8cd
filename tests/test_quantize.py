import copy

import pytest
import torch

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
