"""A network passes on what its blocks make, as it is: nothing as large is made besides."""

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import spikestrap as ss

# So many steps that what is there once a step and sample is less than any activation.
T, N = 16, 64
NEURON = {"threshold": 0.5, "voltage_decay": 0.1}
lif = ss.block.lif


class Made(TorchDispatchMode):
    """What operators make anew: how much a step of a sample has of it, if that is `least` or more.

    `unreadable`: what the neurons' operators got that does not lie as they read it, so that
    they copy it themselves.
    """

    def __init__(self, least):
        super().__init__()
        self.least, self.sizes, self.by, self.unreadable = least, Counter(), [], []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        given = tensors((args, kwargs))
        out = function(*args, **(kwargs or {}))
        memory = {x.untyped_storage().data_ptr() for x in given}
        for x in tensors(out):
            size = x.untyped_storage().nbytes() / x.itemsize / (T * N)
            if size >= self.least and x.untyped_storage().data_ptr() not in memory:
                self.sizes[size] += 1
                self.by.append(f"{function} {tuple(x.shape)}")
        if function.namespace == "spikestrap":
            timed = [x for x in given if x.shape[:2] == (T, N)]
            self.unreadable += [tuple(x.shape) for x in timed if not x.is_contiguous()]
        return out


def tensors(tree):
    return [x for x in tree_leaves(tree) if isinstance(x, torch.Tensor)]


def mlp():
    return (
        lif.Dense(NEURON, 12, 14, bias=True),
        lif.Dense(NEURON, 14, 18, bias=True),
        lif.Affine(None, 18, 3),
    )


def cnn():
    return (
        lif.Conv(NEURON, 1, 2, 3, padding=1, bias=True),
        ss.block.AvgPool(2),
        lif.Conv(NEURON, 2, 3, 3, padding=1, bias=True),
        lif.Pool(NEURON, 2, kind="average"),
        ss.block.Flatten(),
        lif.Dense(NEURON, 12, 14, bias=True),
        lif.Affine(None, 14, 3),
    )


# What a sample has at each step: z and spikes of each layer, and what pools make.
LAYERS = {mlp: (14, 18), cnn: (128, 48, 12, 14)}
POOLS = {mlp: (), cnn: (32,)}


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize(("blocks", "shape"), [(mlp, (12,)), (cnn, (1, 8, 8))])
def test_a_step_makes_each_activation_and_its_gradient_once(blocks, shape, held):
    net = ss.Network(*blocks(), time_steps=T if held else None)
    x = torch.rand(N, *shape) if held else torch.rand(T, N, *shape)
    net(x).sum().backward()  # traces and compiles
    with Made(min(LAYERS[blocks])) as made:
        net(x).sum().backward()
    z = LAYERS[blocks][1:] if held else LAYERS[blocks]  # of an input that is held, one step is
    needed = Counter(2 * (*z, *LAYERS[blocks], *POOLS[blocks]))
    assert made.sizes == needed, made.by
    assert not made.unreadable
