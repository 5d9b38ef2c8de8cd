import numba
import numpy as np
import pytest
import torch

from spikestrap.kernel import cpu
from spikestrap.neuron import SURROGATES


@numba.njit
def over(function, x):
    out = np.empty_like(x)
    for i in range(x.size):
        out[i] = function(x[i])
    return out


def test_exp_is_as_exact_as_its_argument():
    y = np.concatenate([np.linspace(0, 86, 20001), np.geomspace(1e-30, 1, 1000)]).astype(np.float32)
    expected = np.exp(-y.astype(np.float64))
    # y log2 e is rounded once, which counts the more the larger y is.
    assert (abs(over(cpu._exponential, y) / expected - 1) < 3e-7 + 1.2e-7 * y).all()


def test_exp_far_out_is_next_to_nothing():
    y = np.array([87, 100, 1e4, 1e30, np.inf], np.float32)
    out = over(cpu._exponential, y)
    assert (out >= 0).all()
    assert (out < 1e-37).all()


@pytest.mark.parametrize("name", SURROGATES)
def test_surrogates_are_those_of_torch(name):
    x = np.linspace(-30, 30, 10001).astype(np.float32)
    expected = SURROGATES[name].h(torch.from_numpy(x).double())
    np.testing.assert_allclose(over(getattr(cpu, f"_{name}"), x), expected, rtol=2e-6)


@pytest.mark.parametrize("time_steps", [0, 1, 16, 17, 1000, 10**6])
def test_a_trace_fits_the_cache_or_is_as_narrow_as_it_gets(time_steps):
    width = cpu.backward_width(time_steps)
    assert 16 <= width <= cpu._WIDTH
    assert width == 16 or width * time_steps <= cpu._TRACE_FLOATS
