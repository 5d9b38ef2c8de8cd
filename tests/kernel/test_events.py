"""Products of spikes with weights against dense ones."""

import numba
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from spikestrap.kernel import events, use_backend
from spikestrap.synapse import linear as dense

LEAST = {name: getattr(events, name) for name in dir(events) if name.startswith("_FEWEST_")}


@pytest.fixture(autouse=True, scope="module")
def small_ones_too():
    """The kernels run however small the product is; the size is a matter of speed alone."""
    with pytest.MonkeyPatch.context() as patch:
        for least in LEAST:
            patch.setattr(events, least, 1)
        yield


def draw(shape, columns, activity, bias=True, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = (torch.rand(shape, generator=generator) < activity).float()
    weight = torch.randn(columns, shape[-1], generator=generator)
    return x, weight, torch.randn(columns, generator=generator) if bias else None


def results(function, *parts):
    """z and the gradients, by a random gradient of z."""
    leaves = [part.detach().clone().requires_grad_() for part in parts if part is not None]
    z = function(*leaves, *[None] * (3 - len(leaves)))
    grad = torch.rand(z.shape, generator=torch.Generator().manual_seed(1))
    return [z, *torch.autograd.grad(z, leaves, grad)]


def takes_rows(x, weight, bias=None):
    z = events.linear(x.requires_grad_(), weight, bias)
    return "_Linear" in type(z.grad_fn).__name__


def check(*parts):
    assert takes_rows(*parts)
    for ours, expected in zip(
        results(events.linear, *parts), results(F.linear, *parts), strict=True
    ):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(1, 40).map(lambda n: n * 16),
    st.integers(32, 70),
    st.integers(32, 200),
    st.sampled_from([0.0, 0.02, 0.2, 0.6, 1.0]),
    st.booleans(),
    st.integers(0, 100),
)
def test_as_a_dense_product(steps, batch, inputs, outputs, activity, bias, seed):
    assume(steps * batch >= 64)
    check(*draw((steps, batch, inputs), outputs, activity, bias, seed))


def test_many_chunks_of_rows():
    check(*draw((16, 70, 33), 130, 0.1))


def test_a_row_does_not_depend_on_the_others():
    x, weight, bias = draw((4, 64, 50), 40, 0.2)
    whole = events.linear(x, weight, bias)
    x[:, 32:] = 1 - x[:, 32:]
    torch.testing.assert_close(
        events.linear(x, weight, bias)[:, :32], whole[:, :32], rtol=0, atol=0
    )
    torch.testing.assert_close(
        events.linear(x[1:], weight, bias)[:, :32], whole[1:, :32], rtol=0, atol=0
    )


def test_threads_change_nothing():
    parts = draw((8, 64, 64), 256, 0.2)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, numba.config.NUMBA_NUM_THREADS):
            torch.set_num_threads(threads)
            found.append(results(events.linear, *parts))
    finally:
        torch.set_num_threads(before)
    for one, many in zip(*found, strict=True):
        assert torch.equal(one, many)


def test_strides():
    x, weight, bias = draw((64, 4, 40), 48, 0.2)
    check(x.transpose(0, 1), weight, bias)
    check(x, weight.t().contiguous().t(), bias)


@pytest.mark.parametrize("value", [0.5, -1.0, 2.0, float("nan"), float("inf")])
@pytest.mark.parametrize("place", [0, -1])
def test_what_is_not_spikes_is_left_to_torch(value, place):
    x, weight, bias = draw((4, 64, 40), 40, 0.2)
    x[place, place, place] = value
    assert not takes_rows(x, weight, bias)
    torch.testing.assert_close(
        events.linear(x, weight, bias), F.linear(x, weight, bias), rtol=0, atol=0, equal_nan=True
    )


# By measurement, forward and backward, where 0.1 spike.
@pytest.mark.parametrize(
    ("shape", "columns", "rows"),
    [
        ((4, 8, 40), 40, False),
        ((4096, 512), 512, False),  # without time
        ((16, 256, 64), 64, False),
        ((4, 16, 512), 512, False),
        ((4, 32, 2048), 512, False),
        ((16, 256, 784), 10, False),
        ((4, 64, 256), 256, False),
        ((8, 64, 256), 256, True),
        ((4, 64, 512), 512, True),
        ((16, 64, 784), 128, True),
    ],
)
def test_small_products_are_left_to_torch(shape, columns, rows, monkeypatch):
    for name, least in LEAST.items():
        monkeypatch.setattr(events, name, least)
    assert takes_rows(*draw(shape, columns, 0.2)) == rows


def test_other_arithmetic_is_left_to_torch():
    x, weight, bias = draw((4, 64, 40), 40, 0.2)
    assert not takes_rows(x.double(), weight.double(), bias.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert events.linear(x, weight, bias).dtype is torch.bfloat16
    with use_backend("reference"):
        assert not takes_rows(x, weight, bias)


def test_only_what_is_asked_for():
    x, weight, bias = draw((4, 64, 40), 40, 0.2)
    with torch.no_grad():
        assert events.linear(x, weight, bias).grad_fn is None
    weight.requires_grad_()
    events.linear(x, weight, bias).sum().backward()
    assert torch.equal(weight.grad, x.sum((0, 1)).expand(40, 40))


def test_there_is_no_second_derivative():
    x, weight, _ = draw((4, 64, 40), 40, 0.2)
    z = events.linear(x, weight.requires_grad_(), None)
    (grad,) = torch.autograd.grad(z.square().sum(), weight, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_stand_ins_without_memory_are_left_to_torch():
    with FakeTensorMode():
        assert events.linear(torch.ones(4, 64, 40), torch.ones(50, 40), None).shape == (4, 64, 50)


def test_wrong_sizes_are_torchs_to_report():
    x, weight, bias = draw((4, 64, 40), 40, 0.2)
    with pytest.raises(RuntimeError):
        events.linear(x, weight, bias[1:])
    with pytest.raises(RuntimeError):
        events.linear(x, weight, bias.double())
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        events.linear(x[..., 1:], weight, bias)


@pytest.mark.parametrize("weight_norm", [False, True])
def test_dense_synapses_take_rows(weight_norm):
    torch.manual_seed(0)
    synapse = dense(40, 48, True, 1.0, weight_norm)
    x = (torch.rand(4, 64, 40) < 0.2).float()
    z = synapse(x)
    assert "_Linear" in type(z.grad_fn).__name__
    torch.testing.assert_close(z, F.linear(x, synapse.weight, synapse.bias), rtol=1e-5, atol=1e-5)
    assert torch.equal(synapse.run(x, synapse.weight, synapse.bias), z)
