"""Rounding."""

import pytest
import torch

import spikestrap as ss
import spikestrap.lava_dl.slayer as slayer


def test_quantize():
    mode = slayer.utils.QUANTIZE_MODE
    x = torch.tensor([-0.6, 0.3, 0.9, 1.0], requires_grad=True)
    assert slayer.utils.quantize(x, 0.5).tolist() == [-0.5, 0.5, 1.0, 1.0]
    y = slayer.utils.quantize(x, 0.5, mode.FLOOR)
    assert y.tolist() == [-1.0, 0.0, 0.5, 1.0]
    y.sum().backward()
    assert x.grad.tolist() == [1.0] * 4
    with pytest.raises(ss.SpikestrapError, match="QUANTIZE_MODE"):
        slayer.utils.quantize(x, 0.5, 7)
