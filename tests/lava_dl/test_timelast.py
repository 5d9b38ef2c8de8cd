import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import spikestrap as ss
from spikestrap.lava_dl.timelast import time_first, time_last


@given(st.lists(st.integers(1, 4), min_size=3, max_size=5).filter(lambda s: len(s) != 4))
def test_there_and_back_is_a_view(shape):
    x = torch.rand(shape)
    first = time_first(x, "x")
    assert first.shape == (shape[-1], *shape[:-1])
    back = time_last(first)
    assert torch.equal(back, x)
    assert back.data_ptr() == x.data_ptr() == first.data_ptr()


def test_rates_get_one_step():
    assert time_last(torch.rand(2, 3)).shape == (2, 3, 1)
    assert time_last(torch.rand(2, 3, 4, 4)).shape == (2, 3, 4, 4, 1)


def test_anything_else_is_refused():
    with pytest.raises(ss.SpikestrapError, match=r"block: expected \(N, C, T\).*\(2, 3\)"):
        time_first(torch.rand(2, 3), "block")
