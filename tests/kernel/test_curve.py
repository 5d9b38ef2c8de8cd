import math
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.neuron.cases import seeds
from tests.processes import run

from spikestrap import SpikestrapError
from spikestrap.kernel import registers
from spikestrap.kernel.curve import curve, curve_reference, slope_reference
from spikestrap.kernel.curve_loops import _WIDTH as WIDTH


@pytest.fixture(params=["in registers", "by loads"], autouse=True)
def _loops(request, monkeypatch):
    if request.param == "by loads":
        monkeypatch.setattr(registers, "available", lambda: False)
    elif not registers.available():
        pytest.skip("this processor has no AVX-512")


def make(curves=1, cells=6, seed=0):
    """origin, width (K,), values (K, cells + 1), slopes (K, cells + 2)."""
    generator = torch.Generator().manual_seed(seed)
    origin = torch.randn(curves, generator=generator)
    width = 0.1 + torch.rand(curves, generator=generator)
    values = torch.rand(curves, cells + 1, generator=generator).sort(1).values
    return origin, width, values, torch.rand(curves, cells + 2, generator=generator)


def draw(shape, table, seed=0):
    """Inputs on both sides of the grid, inside it, and on its knots."""
    generator = torch.Generator().manual_seed(seed)
    origin, width, values, _ = table
    cells = values.shape[1] - 1
    place = (cells + 8) * torch.rand(shape, generator=generator) - 4
    on_knot = torch.rand(shape, generator=generator) < 0.2
    place = torch.where(on_knot, place.round(), place)
    channels = (-1, *[1] * (len(shape) - 2)) if origin.numel() > 1 else ()
    return origin.view(channels) + place * width.view(channels)


def by_numpy(z, table, levels):
    """np.interp a channel, in float64."""
    origin, width, values, _ = (t.double().numpy() for t in table)
    curves, points = values.shape
    grid = np.arange(points)
    parts = [z] if curves == 1 else z.unbind(1)
    out = [
        np.asarray(np.interp((part.double().numpy() - origin[k]) / width[k], grid, values[k]))
        for k, part in enumerate(parts)
    ]
    if levels:
        out = [np.floor(part * levels + 0.5) / levels for part in out]
    return torch.from_numpy(out[0] if curves == 1 else np.stack(out, 1))


CASES = [
    (1, ()),
    (1, (7,)),
    (1, (5, 3)),
    (3, (5, 3)),
    (1, (2, 3, 4, 5)),
    (3, (2, 3, 4, 5)),
    (3, (2, 3, 1, 1)),
    (1, (2 * WIDTH + 5, 1)),  # more than a thread works on at a time, and no multiple of it
    (3, (3, 3, 37, WIDTH // 100)),
    (7, (WIDTH // 3, 7)),
    # Channels as long as a register, longer, as long as a thread's share, longer, very short.
    (3, (5, 3, 4, 4)),
    (3, (5, 3, 7, 7)),
    (3, (2, 3, WIDTH)),
    (3, (2, 3, WIDTH + 21)),
    (5, (300, 5, 5)),
    (1, (0, 3)),
    (3, (0, 3)),
    (3, (2, 3, 0, 4)),
]
cases = pytest.mark.parametrize(("curves", "shape"), CASES, ids=str)


@cases
@pytest.mark.parametrize("levels", [0, 1, 4])
@pytest.mark.parametrize("cells", [4, 64, 65, 250])
def test_kernel_is_the_reference(curves, shape, levels, cells):
    table = make(curves, cells)
    z = draw(shape, table)
    expected, segment = curve_reference(z, *table[:3], levels)
    rates, own_segment = torch.ops.spikestrap.curve(z, *table, levels)
    assert torch.equal(rates, expected)
    assert torch.equal(own_segment, segment)

    grad = torch.randn(shape)
    expected_grad = grad * slope_reference(segment, table[3])
    for function in (curve, lambda *args: torch.ops.spikestrap.curve(*args)[0]):
        leaf = z.clone().requires_grad_()
        rates = function(leaf, *table, levels)
        rates.backward(grad)
        assert torch.equal(rates, expected)
        assert torch.equal(leaf.grad, expected_grad)


@cases
def test_interpolates_as_numpy_does(curves, shape):
    table = make(curves)
    z = draw(shape, table)
    torch.testing.assert_close(
        curve(z, *table, 0).double(), by_numpy(z, table, 0), rtol=1e-5, atol=1e-6
    )


def test_by_hand():
    # On 1, 1.5, 2: rates 0.1, 0.4, 0.8; slopes before, in each cell, and behind.
    table = (
        torch.tensor([1.0]),
        torch.tensor([0.5]),
        torch.tensor([[0.1, 0.4, 0.8]]),
        torch.tensor([[10.0, 20.0, 30.0, 40.0]]),
    )
    z = torch.tensor([[-5.0, 1.0, 1.25, 1.5, 1.75, 2.0, 9.0]], requires_grad=True)
    rates = curve(z, *table, 0)
    assert rates.flatten().tolist() == pytest.approx([0.1, 0.1, 0.25, 0.4, 0.6, 0.8, 0.8])
    rates.sum().backward()
    # A knot belongs to the cell on its right.
    assert z.grad.flatten().tolist() == [10, 20, 20, 30, 30, 40, 40]
    # Rounded to quarters, half up; the slope is the same.
    z.grad = None
    rates = curve(z, *table, 4)
    assert rates.flatten().tolist() == [0, 0, 0.25, 0.5, 0.5, 0.75, 0.75]
    rates.sum().backward()
    assert z.grad.flatten().tolist() == [10, 20, 20, 30, 30, 40, 40]


@given(seeds, st.integers(1, 64), st.sampled_from([1, 3]))
def test_rounds_to_multiples_of_one_step(seed, levels, curves):
    table = make(curves, seed=seed)
    z = draw((50, 3), table, seed)
    rates = curve(z, *table, levels)
    counts = rates.double() * levels
    torch.testing.assert_close(counts, counts.round(), rtol=0, atol=1e-5)
    exact = curve(z, *table, 0)
    assert (rates - exact).abs().max() <= 0.5 / levels + 1e-6


@pytest.mark.parametrize("curves", [1, 2])
@pytest.mark.parametrize("levels", [0, 3])
def test_nan_goes_through_and_infinity_saturates(curves, levels):
    table = make(curves)
    values, slopes = table[2], table[3]
    z = torch.tensor([[math.nan, -math.inf], [math.inf, math.nan], [0.3, 0.2]], requires_grad=True)
    rates = curve(z, *table, levels)
    expected, _ = curve_reference(z.detach(), *table[:3], levels)
    torch.testing.assert_close(rates, expected, equal_nan=True)
    assert rates.isnan().tolist() == [[True, False], [False, True], [False, False]]
    if not levels:
        assert rates[0, 1] == values[-1, 0]
        assert rates[1, 0] == values[0, -1]
    rates.nan_to_num().sum().backward()
    assert z.grad[0, 1] == slopes[-1, 0]
    assert z.grad[1, 0] == slopes[0, -1]


@pytest.mark.parametrize("curves", [1, 3])
@pytest.mark.parametrize(
    "view",
    [
        lambda z: z.transpose(0, 2).contiguous().transpose(0, 2),
        lambda z: z.to(memory_format=torch.channels_last),
        lambda z: z[..., ::2],
        lambda z: z[:, :, :1, :1].expand(4, 3, 5, 6),
    ],
    ids=["transposed", "channels last", "strided", "repeated"],
)
def test_strides(curves, view):
    table = make(curves)
    z = view(draw((4, 3, 5, 6), table))
    grad = torch.randn(z.shape).transpose(2, 3).contiguous().transpose(2, 3)
    outs = []
    for x in (z, z.contiguous()):
        leaf = x.detach().requires_grad_()
        rates = curve(leaf, *table, 4)
        outs.append((rates, torch.autograd.grad(rates, leaf, grad)[0]))
    for strided, plain in zip(*outs, strict=True):
        assert torch.equal(strided, plain)


@pytest.mark.parametrize("curves", [1, 3])
def test_tables_with_strides(curves):
    table = make(curves)
    leaf = draw((4, 3, 5), table).requires_grad_()
    outs = []
    for parts in (table, [torch.stack([part, part + 1], -1)[..., 0] for part in table]):
        rates = curve(leaf, *parts, 4)
        outs.append((rates, torch.autograd.grad(rates.sum(), leaf)[0]))
    for plain, strided in zip(*outs, strict=True):
        assert torch.equal(plain, strided)


@pytest.mark.parametrize(
    "settings", [{"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}, {"NUMBA_ENABLE_AVX": "0"}]
)
def test_where_numba_is_told_to_do_without(settings, tmp_path):
    code = (
        "import torch, spikestrap.kernel.registers as registers\n"
        "from spikestrap.kernel.curve import curve\n"
        "table = [torch.tensor([0.0]), torch.tensor([1.0]), torch.arange(3.0)[None] / 2]\n"
        "z = torch.linspace(-1, 3, 20, requires_grad=True)\n"
        "curve(z, *table, torch.ones(1, 4), 2).sum().backward()\n"
        "print(registers.available(), z.grad.sum().item())\n"
    )
    done = run(sys.executable, "-c", code, NUMBA_CACHE_DIR=str(tmp_path), **settings)
    assert (done.returncode, done.stdout) == (0, "False 20.0\n"), done.stderr


@pytest.mark.parametrize("curves", [1, 3])
def test_operators_keep_torchs_contract(curves):
    table = make(curves)
    z = draw((4, 3, 2, 2), table)
    leaf = z.clone().requires_grad_()
    torch.library.opcheck(torch.ops.spikestrap.curve.default, (leaf, *table, 4))
    segment = torch.ops.spikestrap.curve(z, *table, 4)[1]
    torch.library.opcheck(
        torch.ops.spikestrap.curve_backward.default, (torch.rand(z.shape), segment, table[3])
    )


def test_second_derivative():
    # Either that of the linear backward pass, or a refusal that says what it is about.
    table = make()
    z = draw((4, 3), table).requires_grad_()
    weight = torch.rand(4, 3, requires_grad=True)
    (grad,) = torch.autograd.grad((curve(z, *table, 0) * weight).sum(), z, create_graph=True)
    try:
        grad.sum().backward()
    except SpikestrapError:
        return
    (slope,) = torch.autograd.grad(curve(z, *table, 0).sum(), z)
    assert torch.equal(weight.grad, slope)
