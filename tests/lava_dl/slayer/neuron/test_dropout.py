"""Dropout."""

import torch

import spikestrap.lava_dl.slayer as slayer


def test_dropout_is_the_same_at_every_step():
    dropout, x = slayer.neuron.Dropout(p=0.5), torch.ones(50, 20, 6)
    y = dropout(x)
    assert set(y.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(y[..., :1].expand_as(y), y)
    assert torch.equal(dropout.eval()(x), x)
