import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from spikestrap import SpikestrapError, hold
from spikestrap.norm import BatchNorm, MeanOnlyNorm, make_norm

SHAPES = [(4, 6, 3), (1, 6, 3), (4, 2, 3, 5, 4), (6, 3), (6, 3, 5, 4)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)
kinds = pytest.mark.parametrize("kind", [BatchNorm, MeanOnlyNorm])


def timed(shape):
    return len(shape) in (3, 5)


def torchs_own(shape, **settings):
    return (nn.BatchNorm1d if len(shape) < 4 else nn.BatchNorm2d)(3, **settings)


def settle(*norms):
    """The same weight, bias and running statistics in all, none of them trivial."""
    weight, bias, mean, var = torch.rand(3) + 0.5, torch.randn(3), torch.randn(3), torch.rand(3)
    with torch.no_grad():
        for norm in norms:
            norm.bias.copy_(bias)
            norm.running_mean.copy_(mean)
            if hasattr(norm, "running_var"):
                norm.weight.copy_(weight)
                norm.running_var.copy_(var + 0.5)


@shapes
def test_batch_norm_is_torchs_on_time_means(shape):
    own, torchs = BatchNorm(3, eps=1e-3, momentum=0.3), torchs_own(shape, eps=1e-3, momentum=0.3)
    settle(own, torchs)
    for _ in range(3):
        z = 2 * torch.randn(shape) + 1
        mean = z.mean(0) if timed(shape) else z
        y, expected = own(z), torchs(mean)
        assert y.shape == z.shape
        torch.testing.assert_close(y.mean(0) if timed(shape) else y, expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(own.running_mean, torchs.running_mean)
        torch.testing.assert_close(own.running_var, torchs.running_var)
    own.eval()
    torchs.eval()
    y, expected = own(z), torchs(mean)
    torch.testing.assert_close(y.mean(0) if timed(shape) else y, expected)


@pytest.mark.parametrize("training", [True, False])
@shapes
def test_batch_norm_has_torchs_gradients(shape, training):
    own, torchs = BatchNorm(3).train(training), torchs_own(shape).train(training)
    settle(own, torchs)
    z, weight = torch.randn(shape), torch.randn(shape)
    outs = []
    for norm in (own, torchs):
        leaf = z.clone().requires_grad_()
        if norm is own or not timed(shape):
            y = norm(leaf)
        else:
            # An affine map of all steps by the statistics of the mean.
            mean = leaf.mean(0)
            axes = [0, *range(2, mean.ndim)]
            to = (-1, *[1] * (mean.ndim - 2))
            centre, var = norm.running_mean, norm.running_var
            if training:
                centre, var = mean.mean(axes), mean.var(axes, unbiased=False)
            y = (leaf - centre.view(to)) / (var.view(to) + norm.eps).sqrt()
            y = y * norm.weight.view(to) + norm.bias.view(to)
        (y * weight).sum().backward()
        outs.append((y, leaf.grad, norm.weight.grad, norm.bias.grad))
    for own_value, expected in zip(*outs, strict=True):
        torch.testing.assert_close(own_value, expected, rtol=1e-4, atol=1e-5)


@shapes
def test_mean_only_takes_the_mean_away(shape):
    norm = MeanOnlyNorm(3, momentum=0.3)
    settle(norm)
    before = norm.running_mean.clone()
    z = torch.randn(shape) + 1
    to = (-1, *[1] * (len(shape) - 2 - timed(shape)))
    mean = z.transpose(0, 2 if timed(shape) else 1).flatten(1).mean(1)
    torch.testing.assert_close(norm(z), z - (mean - norm.bias).view(to), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(norm.running_mean, 0.7 * before + 0.3 * mean)
    norm.eval()
    expected = z - (norm.running_mean - norm.bias).view(to)
    torch.testing.assert_close(norm(z), expected, rtol=1e-5, atol=1e-5)


@kinds
@given(st.sampled_from([(4, 6, 3), (3, 2, 3, 4, 2)]), st.booleans(), st.integers(0, 2**32 - 1))
def test_commutes_with_averaging_over_time(kind, shape, training, seed):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(shape, generator=generator)
    norm = kind(3).train(training)
    settle(norm)
    twin = copy.deepcopy(norm)
    torch.testing.assert_close(norm(z).mean(0), twin(z.mean(0)), rtol=1e-4, atol=1e-5)
    # One set of running statistics serves both.
    for name, buffer in norm.named_buffers():
        torch.testing.assert_close(buffer, twin.get_buffer(name))


@kinds
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(6, 3), (6, 3, 5, 4)])
def test_held_is_as_repeated(kind, training, shape):
    x = torch.randn(shape)
    norm = kind(3).train(training)
    settle(norm)
    outs = []
    for z in (hold(x, 4), hold(x, 4).clone(), x.unsqueeze(0)):
        twin = copy.deepcopy(norm)
        outs.append((twin(z)[0], twin.running_mean))
    for y, mean in outs[1:]:
        torch.testing.assert_close(y, outs[0][0])
        torch.testing.assert_close(mean, outs[0][1])


@kinds
@shapes
def test_folded_is_the_norm_of_evaluation(kind, shape):
    norm = kind(3)
    settle(norm)
    norm(torch.randn(shape))
    norm.eval()
    scale, shift = norm.folded()
    z = torch.randn(shape)
    to = (-1, *[1] * (len(shape) - 2 - timed(shape)))
    torch.testing.assert_close(norm(z), scale.view(to) * z + shift.view(to), rtol=1e-4, atol=1e-5)
    assert scale.shape == shift.shape == (3,)


@kinds
def test_folded_leaves_training_and_statistics_alone(kind):
    norm = kind(3)
    settle(norm)
    before = copy.deepcopy(norm.state_dict())
    norm.folded()
    assert norm.training
    for name, value in norm.state_dict().items():
        assert torch.equal(value, before[name])


@kinds
def test_folds_into_a_convolution(kind):
    conv, norm = nn.Conv2d(2, 3, 3), kind(3)
    settle(norm)
    norm.eval()
    scale, shift = norm.folded()
    folded = copy.deepcopy(conv)
    with torch.no_grad():
        folded.weight.mul_(scale.view(-1, 1, 1, 1))
        folded.bias.mul_(scale).add_(shift)
    x = torch.randn(4, 2, 6, 6)
    torch.testing.assert_close(folded(x), norm(conv(x)), rtol=1e-4, atol=1e-5)
    if kind is MeanOnlyNorm:
        assert torch.equal(folded.weight, conv.weight)


@kinds
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(kind, training, dtype):
    norm = kind(3).train(training)
    settle(norm)
    twin = copy.deepcopy(norm)
    z = torch.randn(4, 50, 3).to(dtype)
    y = norm(z)
    assert y.dtype is dtype
    expected = twin(z.float())
    torch.testing.assert_close(y.float(), expected, rtol=1e-2, atol=1e-2)
    assert norm.running_mean.dtype is torch.float32
    # Statistics of the same values, whatever they were stored in.
    torch.testing.assert_close(norm.running_mean, twin.running_mean, rtol=1e-2, atol=1e-2)


@kinds
@pytest.mark.parametrize("training", [True, False])
def test_runs_in_float64(kind, training):
    norm = kind(3)
    settle(norm)
    twin = copy.deepcopy(norm).double().train(training)
    norm.train(training)
    z = torch.randn(4, 50, 3, dtype=torch.float64)
    y = twin(z)
    assert y.dtype is torch.float64
    torch.testing.assert_close(y.float(), norm(z.float()), rtol=1e-4, atol=1e-5)


@kinds
def test_evaluation_moves_nothing(kind):
    norm = kind(3).eval()
    before = copy.deepcopy(norm.state_dict())
    norm(torch.randn(4, 6, 3))
    for name, value in norm.state_dict().items():
        assert torch.equal(value, before[name])


@kinds
def test_strides(kind):
    for z in (torch.randn(6, 3, 4).permute(2, 0, 1), torch.randn(4, 2, 5, 6, 3).movedim(4, 2)):
        norm = kind(3)
        twin = copy.deepcopy(norm)
        torch.testing.assert_close(norm(z), twin(z.contiguous()))


@kinds
@pytest.mark.parametrize("shape", [(4, 1, 3), (1, 1, 3), (1, 3), (4, 1, 3, 1, 1)], ids=str)
def test_one_value_a_channel_has_no_statistics(kind, shape):
    norm = kind(3)
    with pytest.raises(SpikestrapError, match=f"{kind.__name__}: training needs more") as caught:
        norm(torch.randn(shape))
    assert str(shape) in str(caught.value)
    assert norm.eval()(torch.randn(shape)).shape == shape


def test_names():
    assert make_norm(None, 3) is None
    assert isinstance(make_norm("batch", 3), BatchNorm)
    assert isinstance(make_norm("mean_only", 3), MeanOnlyNorm)
    with pytest.raises(SpikestrapError, match="None or one of batch, mean_only; got 'layer'"):
        make_norm("layer", 3)


@kinds
def test_state_dict_round_trip(kind):
    norm, fresh = kind(3), kind(3)
    settle(norm)
    fresh.load_state_dict(norm.state_dict())
    z = torch.randn(4, 6, 3)
    assert torch.equal(fresh.eval()(z), norm.eval()(z))
