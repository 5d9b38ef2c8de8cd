"""The filter against numpy's convolution."""

import numpy as np
import torch

import spikestrap.lava_dl.slayer as slayer


def test_filter_is_a_causal_convolution():
    x = torch.rand(2, 3, 20)
    y = slayer.utils.filter.FIR(time_constant=2.0, length=8, sampling_time=2)(x)
    response = np.exp(-np.arange(8) / 2.0)
    expected = [[2 * np.convolve(row, response)[:20] for row in rows] for rows in x.numpy()]
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-5)
