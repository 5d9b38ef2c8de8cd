import pytest
import torch

from spikestrap import SpikestrapError, hold
from spikestrap.timeaxis import compact, has_time, is_held, over_time, time_mean


@pytest.mark.parametrize(
    ("shape", "timed"),
    [((2, 3), False), ((4, 2, 3), True), ((2, 3, 5, 5), False), ((4, 2, 3, 5, 5), True)],
)
def test_axes_tell_whether_there_is_time(shape, timed):
    assert has_time(torch.zeros(shape)) == timed


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 5, 5)])
def test_hold_repeats_without_a_copy(shape):
    x = torch.rand(shape, requires_grad=True)
    held = hold(x, 4)
    assert held.shape == (4, *shape)
    assert held.data_ptr() == x.data_ptr()
    assert torch.equal(held, x.expand(4, *shape))
    assert is_held(held)
    held.sum().backward()
    assert (x.grad == 4).all()


@pytest.mark.parametrize("time_steps", [0, -1, 2.0, "4", None])
def test_hold_refuses(time_steps):
    with pytest.raises(SpikestrapError, match="whole number >= 1, got"):
        hold(torch.rand(2, 3), time_steps)


def test_held_is_told_by_its_memory():
    x = torch.rand(4, 2, 3)
    assert not is_held(x)
    assert not is_held(hold(torch.rand(2, 3), 4).clone())
    assert is_held(x[:1])
    assert compact(x) is x
    assert compact(hold(x[0], 4)).shape == (1, 2, 3)
    assert torch.equal(compact(hold(x[0], 4))[0], x[0])


@pytest.mark.parametrize("shape", [(4, 2, 3), (4, 2, 3, 5, 5), (1, 2, 3)])
def test_time_mean(shape):
    x = torch.rand(shape)
    torch.testing.assert_close(time_mean(x), x.sum(0) / shape[0])


def test_time_mean_of_held_is_exact():
    x = torch.rand(2, 3)
    assert torch.equal(time_mean(hold(x, 7)), x)


def test_time_mean_of_held_has_its_gradient():
    x = torch.rand(2, 3, requires_grad=True)
    time_mean(hold(x, 7)).sum().backward()
    assert (x.grad == 1).all()


def test_over_time_folds_time_into_the_batch():
    x = torch.rand(4, 2, 3, 5, 5)
    seen = []

    def function(r):
        seen.append(r.shape)
        return r.flatten(1) * 2

    y = over_time(function, x)
    assert seen == [(8, 3, 5, 5)]
    assert torch.equal(y, 2 * x.flatten(2))
