"""The filter against numpy's convolution."""

import numpy as np
import pytest
import torch

import spikestrap as ss
import spikestrap.lava_dl.slayer as slayer


def test_filter_is_a_causal_convolution():
    x = torch.rand(2, 3, 20)
    y = slayer.utils.filter.FIR(time_constant=2.0, length=8, sampling_time=2)(x)
    response = np.exp(-np.arange(8) / 2.0)
    expected = [[2 * np.convolve(row, response)[:20] for row in rows] for rows in x.numpy()]
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-5)


def test_a_filter_has_a_length():
    fir = slayer.utils.filter.FIR
    for make, told in [
        (lambda: fir(length=0), "length must be a whole number >= 1, got 0"),
        (lambda: fir(time_constant=0), "time_constant must not be 0"),
        (lambda: fir([]), r"a response of one axis, not empty, got shape \(0,\)"),
        (lambda: fir([[1.0]]), r"a response of one axis, not empty, got shape \(1, 1\)"),
        (lambda: fir()(torch.ones(1, 1, 4).int()), "floating-point spikes or rates"),
    ]:
        with pytest.raises(ss.SpikestrapError, match=f"FIR: .*{told}"):
            make()
