import pytest
import torch
from torch.nn import functional as F

from spikestrap.kernel import pooling, use_backend
from spikestrap.kernel.pooling import pool

TWO, NONE = (2, 2), (0, 0)
SHAPES = [(1, 1, 2, 2), (2, 3, 4, 6), (3, 2, 5, 7), (2, 5, 3, 2), (300, 2, 28, 28), (2, 1, 2, 131)]


@pytest.fixture
def own(monkeypatch):
    """How often our kernel ran."""
    calls = []
    apply = pooling._Gather.apply
    monkeypatch.setattr(pooling._Gather, "apply", lambda *args: calls.append(1) or apply(*args))
    return calls


def torchs(x, divisor):
    return F.avg_pool2d(x, TWO, divisor_override=divisor)


def ours(x, divisor):
    return pool(x, TWO, TWO, NONE, divisor)


@pytest.mark.parametrize("divisor", [1, 3, 4])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_torchs_to_the_bit(own, shape, divisor):
    x = torch.randn(shape)
    x.view(-1)[0] = float("nan")
    results = []
    for function in (torchs, ours):
        leaf = x.clone().requires_grad_()
        out = function(leaf, divisor)
        grad = torch.randn(
            out.shape, generator=torch.Generator().manual_seed(0), requires_grad=True
        )
        (first,) = torch.autograd.grad(out, leaf, grad, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), grad)
        results.append((out, first, second))
    assert own
    for expected, found in zip(*results, strict=True):
        assert torch.equal(expected.nan_to_num(7), found.nan_to_num(7))


def test_gradients_that_are_not_in_memory():
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    zeros, minus = torch._efficientzerotensor((2, 3, 2, 2)), torch._neg_view(torch.ones(2, 3, 2, 2))
    for grad, expected in ((zeros, 0), (minus, -0.25)):
        (found,) = torch.autograd.grad(ours(x, 4), x, grad)
        assert torch.equal(found, torch.full(x.shape, float(expected)))


def test_without_masked_vectors(monkeypatch):
    monkeypatch.setattr(pooling, "available", lambda: False)
    for shape in SHAPES:
        x = torch.randn(shape, requires_grad=True)
        for function in (torchs, ours):
            out = function(x, 3)
            grad = torch.autograd.grad(out, x, torch.ones_like(out) / 3)[0]
            if function is torchs:
                expected = out, grad
        assert torch.equal(out, expected[0])
        assert torch.equal(grad, expected[1])


@pytest.mark.parametrize(
    "x",
    [
        torch.randn(2, 3, 4, 4, dtype=torch.float64),
        torch.randn(2, 3, 4, 4).bfloat16(),
        torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        torch.randn(2, 3, 4, 8)[..., ::2],
        torch.randn(0, 3, 4, 4),
        torch.randn(3, 4, 4),
    ],
    ids=["float64", "bfloat16", "channels last", "strided", "empty", "one sample"],
)
def test_left_to_torch(own, x):
    assert torch.equal(ours(x, 4), torchs(x, 4))
    assert not own


def test_other_windows_and_the_reference_are_torchs(own):
    x = torch.randn(2, 3, 9, 9)
    for sizes in (((3, 3), (3, 3), NONE), (TWO, (1, 1), NONE), (TWO, TWO, (1, 1)), ((2, 1),) * 2):
        window, stride, padding = (*sizes, NONE)[:3]
        expected = F.avg_pool2d(x, window, stride, padding, divisor_override=2)
        assert torch.equal(pool(x, window, stride, padding, 2), expected)
    with use_backend("reference"):
        assert torch.equal(ours(x, 4), torchs(x, 4))
    assert not own


def test_too_small_is_torchs_error():
    with pytest.raises(RuntimeError, match="utput size is too small"):
        ours(torch.randn(1, 1, 1, 4), 4)


def test_compiled(fresh_compiler):
    x = torch.randn(2, 3, 4, 4)
    compiled = torch.compile(ours, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(x, 4), torchs(x, 4))
