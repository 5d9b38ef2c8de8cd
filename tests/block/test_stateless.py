import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from spikestrap import Mode, SpikestrapError, hold
from spikestrap.block import Add, AvgPool, Dropout, Flatten, Upsample
from spikestrap.timeaxis import is_held

seeds = st.integers(0, 2**32 - 1)
BLOCKS = {
    "flatten": Flatten(),
    "average": AvgPool(2),
    "average, strided": AvgPool(3, stride=2, padding=1),
    "average, weighted": AvgPool(2, weight=3.0),
    "upsample": Upsample(2),
    "dropout": Dropout(0.4),
    "dropout in evaluation": Dropout(0.4).eval(),
}
every = pytest.mark.parametrize("block", BLOCKS.values(), ids=list(BLOCKS))


def run(block, x, seed=0):
    torch.manual_seed(seed)
    return block(x)


def draw(seed, shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@every
@given(seeds, st.integers(1, 5), st.integers(1, 3), st.integers(1, 4), st.integers(4, 7))
def test_commutes_with_averaging_over_time(block, seed, time_steps, batch, channels, size):
    x = draw(seed, (time_steps, batch, channels, size, size + 1))
    torch.testing.assert_close(run(block, x).mean(0), run(block, x.mean(0)))


@every
def test_held_is_as_repeated(block):
    x = draw(0, (3, 2, 6, 6))
    held, repeated = run(block, hold(x, 4)), run(block, x.repeat(4, 1, 1, 1, 1))
    torch.testing.assert_close(held, repeated)
    torch.testing.assert_close(held[0], run(block, x))


@pytest.mark.parametrize("block", [Flatten(), AvgPool(2), Upsample(2)])
def test_what_is_held_stays_held(block):
    assert is_held(block(hold(torch.rand(3, 2, 6, 6), 4)))


@every
@pytest.mark.parametrize("mode", Mode)
def test_takes_any_mode(block, mode):
    x = draw(0, (4, 3, 2, 6, 6))
    torch.manual_seed(0)
    y = block(x, mode=mode)
    assert torch.equal(y, run(block, x))


@every
def test_input_is_left_alone_and_gets_gradients(block):
    x = draw(0, (4, 3, 2, 6, 6))
    before = x.clone()
    y = block(x.requires_grad_())
    y.sum().backward()
    assert torch.equal(x, before)
    assert (x.grad != 0).any()


def test_flatten():
    x = torch.rand(4, 3, 2, 5, 6)
    assert torch.equal(Flatten()(x), x.view(4, 3, 60))
    assert torch.equal(Flatten()(x[0]), x[0].view(3, 60))
    for flat in (torch.rand(3, 7), torch.rand(4, 3, 7)):
        assert torch.equal(Flatten()(flat), flat)


def test_average_pooling_is_torchs():
    x = torch.rand(4, 3, 2, 6, 7)
    for settings in ((2,), ((2, 3), 1), (3, None, 1)):
        expected = F.avg_pool2d(x.flatten(0, 1), *settings).unflatten(0, (4, 3))
        torch.testing.assert_close(AvgPool(*settings)(x), expected)
        torch.testing.assert_close(AvgPool(*settings, weight=2.5)(x), 2.5 * expected)


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), "2", None])
def test_average_pooling_refuses_a_weight(weight):
    with pytest.raises(SpikestrapError, match="AvgPool: weight must be a finite number, got"):
        AvgPool(2, weight=weight)


def test_upsample_repeats():
    x = (torch.rand(4, 3, 2, 5, 6) > 0.5).float()
    expected = x.repeat_interleave(3, -1).repeat_interleave(3, -2)
    assert torch.equal(Upsample(3)(x), expected)
    assert torch.equal(Upsample(1)(x[0]), x[0])


@pytest.mark.parametrize("block", [AvgPool(2), Upsample(2)])
@pytest.mark.parametrize("shape", [(3, 6), (4, 3, 6)])
def test_refuses_what_is_no_image(block, shape):
    with pytest.raises(SpikestrapError, match="expected images") as caught:
        block(torch.rand(shape))
    assert str(shape) in str(caught.value)


@pytest.mark.parametrize("factor", [0, -1, 1.5, "2", None])
def test_upsample_refuses_a_factor(factor):
    with pytest.raises(SpikestrapError, match="scale_factor must be a whole number >= 1, got"):
        Upsample(factor)


class TestAdd:
    @given(seeds, st.booleans(), st.booleans())
    def test_commutes_with_averaging_over_time(self, seed, image, mixed):
        features = (2, 4, 4) if image else (5,)
        x, y = draw(seed, (4, 3, *features)), draw(seed + 1, (4, 3, *features))
        expected = x.mean(0) + y.mean(0)
        if mixed:
            # A branch that crossed over and one that did not.
            torch.testing.assert_close(Add()(x, y.mean(0)), expected)
            torch.testing.assert_close(Add()(x.mean(0), y), expected)
        else:
            torch.testing.assert_close(Add()(x, y).mean(0), expected)
            torch.testing.assert_close(Add()(x.mean(0), y.mean(0)), expected)

    def test_of_a_held_branch(self):
        x, y = torch.rand(3, 5), torch.rand(4, 3, 5)
        torch.testing.assert_close(Add()(hold(x, 4), y), x + y)

    @pytest.mark.parametrize(
        ("x", "y"), [((4, 3, 5), (4, 3, 6)), ((3, 5), (1, 5)), ((4, 3, 5), (2, 3, 5))]
    )
    def test_refuses_other_shapes(self, x, y):
        with pytest.raises(SpikestrapError, match="two of one shape") as caught:
            Add()(torch.rand(x), torch.rand(y))
        assert str(x) in str(caught.value)
        assert str(y) in str(caught.value)


class TestDropout:
    @pytest.mark.parametrize("shape", [(4, 30, 50), (4, 3, 5, 10, 10)])
    def test_one_mask_for_all_steps(self, shape):
        y = Dropout(0.3)(torch.ones(shape))
        assert torch.equal(y, y[:1].expand(shape))
        kept = y[0] != 0
        assert kept.float().mean().item() == pytest.approx(0.7, abs=0.06)
        torch.testing.assert_close(y[0][kept], torch.full_like(y[0][kept], 1 / 0.7))

    def test_another_mask_at_every_call(self):
        block, x = Dropout(0.5), torch.ones(4, 8, 50)
        assert not torch.equal(block(x), block(x))

    def test_does_nothing_in_evaluation(self):
        x = torch.rand(4, 8, 5)
        assert torch.equal(Dropout(0.9).eval()(x), x)
        assert torch.equal(Dropout(0.0)(x), x)

    @pytest.mark.parametrize("p", [-0.1, 1, 1.5, float("nan"), "0.5", None])
    def test_refuses(self, p):
        with pytest.raises(SpikestrapError, match=r"probability in \[0, 1\), got"):
            Dropout(p)
