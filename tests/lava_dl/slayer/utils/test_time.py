"""Values held, and spikes moved in time."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.lava_dl.cases import spikes

import spikestrap as ss
import spikestrap.lava_dl.slayer as slayer


def test_replicate_is_a_view():
    x = torch.rand(2, 3, 4)
    y = slayer.utils.time.replicate(x, 5)
    assert y.shape == (2, 3, 4, 5)
    assert y.data_ptr() == x.data_ptr()
    assert torch.equal(y[..., 3], x)
    with pytest.raises(ss.SpikestrapError, match="num_steps"):
        slayer.utils.time.replicate(x, 0)


@given(st.integers(-7, 7), st.integers(1, 6))
def test_shift_by_a_number(steps, length):
    x = torch.arange(1.0, 1 + 2 * length).view(1, 2, length)
    y = slayer.utils.time.shift(x, steps)
    for t in range(length):
        source = t - steps
        expected = x[..., source] if 0 <= source < length else torch.zeros(1, 2)
        assert torch.equal(y[..., t], expected)


def test_shift_of_each_neuron():
    x = spikes(3, 2, 2, 6)
    by = torch.tensor([0.0, 1.0, -2.0, 9.0])
    y = slayer.utils.time.shift(x, by)
    each = [slayer.utils.time.shift(x.flatten(1, 2)[:, i], n.item()) for i, n in enumerate(by)]
    assert torch.equal(y.flatten(1, 2), torch.stack(each, 1))
    assert torch.equal(slayer.axon.delay(x, 4, 2), slayer.utils.time.shift(x, 2))
    with pytest.raises(ss.SpikestrapError, match="expected one number or 4"):
        slayer.utils.time.shift(x, torch.ones(3))
