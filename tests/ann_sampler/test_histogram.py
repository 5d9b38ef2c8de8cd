import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from spikestrap.ann_sampler.histogram import ROWS, add_pairs, bin_of, num_bins

fines = st.sampled_from([3, 5])
values = st.floats(width=32, allow_nan=False, allow_infinity=False)


def histogram(z, a, channels, fine):
    sums = torch.zeros(channels, len(ROWS), num_bins(fine), dtype=torch.float64)
    add_pairs(sums, z, a, fine)
    return sums


def expected_bin(z, fine):
    """2**fine bins an octave from 2**-24 to 2**24, the same below zero, by frexp."""
    last = num_bins(fine) // 2
    if abs(z) < 2**-24:
        return last
    mantissa, exponent = math.frexp(abs(z))  # |z| = mantissa 2**exponent, 1/2 <= mantissa < 1
    place = (exponent - 1 + 24) * 2**fine + math.floor((2 * mantissa - 1) * 2**fine)
    place = min(place + 1, last)
    return last + place if z > 0 else last - place


@given(st.lists(values, min_size=1, max_size=20), fines)
def test_bins_are_those_of_the_float_format(z, fine):
    expected = [expected_bin(value, fine) for value in z]
    assert bin_of(torch.tensor(z), fine).tolist() == expected


@pytest.mark.parametrize("fine", [3, 5])
def test_bins_ascend_and_every_one_is_used(fine):
    octaves = 2.0 ** torch.linspace(-25, 24, 49 * 2**fine * 8 + 1)
    z = torch.cat([-octaves.flip(0), torch.zeros(1), octaves])
    index = bin_of(z, fine)
    assert (index.diff() >= 0).all()
    assert index.unique().tolist() == list(range(num_bins(fine)))


def test_half_precision_and_strides():
    z = torch.randn(40, 6)
    assert torch.equal(bin_of(z.half(), 5), bin_of(z.half().float(), 5))
    assert torch.equal(bin_of(z.T, 5), bin_of(z, 5).T)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(40, 3), (5, 3, 4, 2)])
def test_sums_over_bins(channels, shape):
    z, a = torch.randn(shape), torch.rand(shape)
    sums = histogram(z, a, channels, 5)
    for k in range(channels):
        z_k, a_k = (x[:, k] if channels > 1 else x for x in (z.double(), a.double()))
        index = bin_of(z_k.float(), 5)
        for b in index.unique().tolist():
            inside = index == b
            expected = [
                inside.sum(),
                z_k[inside].sum(),
                a_k[inside].sum(),
                (a_k[inside] ** 2).sum(),
            ]
            assert sums[k, :, b].tolist() == pytest.approx([x.item() for x in expected])
        assert sums[k, 0].sum() == z_k.numel()


@given(st.lists(st.tuples(values, st.floats(0, 1, width=32)), min_size=2, max_size=30), st.data())
def test_adds_up(pairs, data):
    z, a = torch.tensor(pairs).unsqueeze(-1).unbind(1)
    cut = data.draw(st.integers(0, len(pairs)))
    parts = histogram(z[:cut], a[:cut], 1, 5)
    add_pairs(parts, z[cut:], a[cut:], 5)
    torch.testing.assert_close(parts, histogram(z, a, 1, 5))


class Largest(TorchDispatchMode):
    """How many entries the largest tensor has that operators make anew."""

    entries = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        out = function(*args, **(kwargs or {}))
        memory = {x.untyped_storage().data_ptr() for x in given}
        for x in tree_leaves(out):
            if isinstance(x, torch.Tensor) and x.untyped_storage().data_ptr() not in memory:
                self.entries = max(self.entries, x.numel())
        return out


def test_makes_nothing_larger_than_the_pairs():
    z, a = torch.randn(4, 100), torch.rand(4, 100)
    sums = torch.zeros(100, len(ROWS), num_bins(3), dtype=torch.float64)
    with Largest() as largest:
        add_pairs(sums, z, a, 3)
    assert largest.entries == z.numel()
