"""Dropout."""

import torch

import spikestrap.lava_dl.slayer as slayer


def test_dropout_is_the_same_at_every_step():
    dropout, x = slayer.neuron.Dropout(p=0.5), torch.ones(50, 20, 6)
    y = dropout(x)
    assert set(y.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(y[..., :1].expand_as(y), y)
    assert torch.equal(dropout.eval()(x), x)


def test_any_features_and_in_place():
    x = torch.ones(50, 2, 5, 6)
    y = slayer.neuron.Dropout(0.5, inplace=True)(x)
    assert y is x
    assert set(y.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(y[..., :1].expand_as(y), y)
    assert not torch.equal(y[:, :, :1].expand_as(y), y)
    assert y.shape == slayer.neuron.Dropout(0.5)(y).shape
