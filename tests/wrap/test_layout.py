import torch
from hypothesis import given
from hypothesis import strategies as st

from spikestrap.wrap.layout import BATCH_FIRST, FOLDED, STEP, TIME_FIRST, from_time_first
from spikestrap.wrap.layout import to_time_first as to_front


@given(
    steps=st.integers(1, 5),
    batch=st.integers(1, 4),
    features=st.lists(st.integers(1, 3), max_size=3),
    layout=st.sampled_from([TIME_FIRST, BATCH_FIRST, FOLDED]),
)
def test_there_and_back(steps, batch, features, layout):
    x = torch.rand(steps, batch, *features)
    assert torch.equal(to_front(from_time_first(x, layout), layout, steps), x)
    step = from_time_first(x[:1], STEP)
    assert torch.equal(step, x[0])
    assert torch.equal(to_front(step, STEP, steps), x[:1])


def test_where_time_is():
    x = torch.arange(6).view(3, 2)  # x[t, n]
    assert from_time_first(x, BATCH_FIRST).tolist() == [[0, 2, 4], [1, 3, 5]]
    assert from_time_first(x, FOLDED).tolist() == [0, 2, 4, 1, 3, 5]
