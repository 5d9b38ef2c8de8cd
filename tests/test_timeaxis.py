from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spikestrap import SpikestrapError, hold, pad, ragged
from spikestrap.timeaxis import compact, has_time, is_held, longest, over_time, time_mean, valid

some_lengths = st.lists(st.integers(1, 40), min_size=1, max_size=5)


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


@given(lengths=some_lengths, exact=st.booleans(), seed=st.integers(0, 99))
def test_means_of_what_is_padded_are_those_of_what_is_not(lengths, exact, seed):
    """To the bit where sums are exact, as those of spikes are, whatever the padding holds."""
    generator = torch.Generator().manual_seed(seed)
    alone = [torch.rand(length, 3, generator=generator) for length in lengths]
    alone = [(64 * x).round() / 64 if exact else x for x in alone]
    x, found = pad(alone)
    for n, length in enumerate(lengths):
        x[length:, n] = torch.nan
    with ragged(found):
        assert longest() == max(lengths)
        for mean, sample in zip(time_mean(x), alone, strict=True):
            torch.testing.assert_close(mean, sample.mean(0))
            assert not exact or torch.equal(mean, sample.mean(0))
        steps = valid(x)
    assert len(steps) == sum(lengths)
    torch.testing.assert_close(steps.sum(0), sum(sample.sum(0) for sample in alone))
    assert longest() is None


@given(lengths=some_lengths)
def test_padding_gets_no_gradient(lengths):
    x, found = pad([torch.rand(length, 3) for length in lengths])
    x.requires_grad_()
    with ragged(found):
        time_mean(x).sum().backward()
    for n, length in enumerate(lengths):
        assert torch.equal(x.grad[:length, n], torch.full((length, 3), 1 / length))
        assert not x.grad[length:, n].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.complex64])
def test_means_keep_their_precision(dtype):
    x = torch.ones(3000, 2, 1, dtype=dtype)
    with ragged(torch.tensor([2999, 3000])):
        mean = time_mean(x)
    assert torch.equal(mean, torch.ones(2, 1, dtype=dtype))


def test_what_is_held_and_rates_have_no_padding():
    x = torch.rand(2, 3)
    with ragged(torch.tensor([1, 2])):
        assert torch.equal(time_mean(hold(x, 4)), x)
        assert valid(x) is x
    assert valid(x) is x


def test_lengths_hold_in_their_block_and_thread_alone():
    x = torch.tensor([1.0, 0.0]).view(2, 1, 1)
    with ragged(torch.tensor([1])):
        with ragged(torch.tensor([2])):
            assert time_mean(x).item() == 0.5
        assert time_mean(x).item() == 1
        with ThreadPoolExecutor(1) as other:
            assert other.submit(time_mean, x).result().item() == 0.5
    with pytest.raises(ZeroDivisionError), ragged(torch.tensor([1])):
        raise ZeroDivisionError
    assert time_mean(x).item() == 0.5


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([1, 2], "expected a tensor \\(N,\\), got list"),
        (torch.tensor([1.0, 2.0]), r"expected whole numbers \(N,\), got torch.float32 \(2,\)"),
        (torch.tensor([True, True]), r"got torch.bool \(2,\)"),
        (torch.tensor([[1, 2]]), r"got torch.int64 \(1, 2\)"),
        (torch.tensor([], dtype=torch.int64), r"got torch.int64 \(0,\)"),
        (torch.tensor([1, 0]), "expected at least 1 step each, got 0"),
        (torch.tensor([1, 2, 3]), r"one for each of the 2 samples of \(4, 2, 3\), got 3"),
    ],
)
def test_lengths_that_are_none(lengths, message):
    with pytest.raises(SpikestrapError, match=message), ragged(lengths):
        time_mean(torch.rand(4, 2, 3))


@pytest.mark.parametrize("samples", [[], [(0, 3)], [(2, 3), (2, 4)], [(2, 3), (3,)], [(3,)]])
def test_what_cannot_be_padded(samples):
    with pytest.raises(SpikestrapError, match=r"pad: expected samples \(T, features"):
        pad([torch.ones(shape) for shape in samples])
