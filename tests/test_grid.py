import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spikestrap import SpikestrapError
from spikestrap.grid import BIAS, CURRENT_DECAY, STATE, THRESHOLD, VOLTAGE_DECAY, weight_grid


@given(seed=st.integers(0, 999), bits=st.integers(2, 8), size=st.sampled_from([0.01, 1.0, 9.0]))
def test_weights_are_even_integers_of_so_many_bits(seed, bits, size):
    weight = size * torch.randn(50, generator=torch.Generator().manual_seed(seed))
    grid = weight_grid(weight, bits)
    integers = grid(weight) * 64
    assert torch.equal(integers, integers.round())
    assert bool((integers % 2 == 0).all())
    assert integers.min() >= -256
    assert integers.max() <= 254
    assert len(torch.unique(integers / (64 * grid.step))) <= 2**bits
    inside = (weight >= grid.low) & (weight <= grid.high)
    assert float((grid(weight) - weight)[inside].abs().max()) <= grid.step / 2
    # The least step with which the largest weight fits, unless the chip has none larger.
    assert (
        bool(inside.all()) or grid.low == -4.0 or float(weight.max()) <= grid.high + grid.step / 2
    )


def test_eight_bits_are_lava_dls_grid():
    weight = torch.linspace(-5, 5, 1001)
    expected = ((weight * 32).round() * 2).clamp(-256, 254)
    assert torch.equal(weight_grid(weight, 8)(weight) * 64, expected)


@pytest.mark.parametrize(
    ("grid", "scale", "low", "high"),
    [
        (BIAS, 64, -4096, 4095),
        (THRESHOLD, 64, 1, 131071),
        (CURRENT_DECAY, 4096, 1, 4096),
        (VOLTAGE_DECAY, 4096, 0, 4095),
        (STATE, 4096, 1 - 2**23, 2**23 - 1),
    ],
)
def test_registers_hold_whole_numbers_of_their_range(grid, scale, low, high):
    x = torch.tensor([-1e6, -0.3, 0.0, 0.3, 1.0, 1e6])
    integers = grid(x) * scale
    assert torch.equal(integers, integers.round())
    assert (integers.min().item(), integers.max().item()) == (low, high)


def test_the_gradient_does_not_die_beyond_the_ends():
    x = torch.tensor([-100.0, 0.1, 100.0], requires_grad=True)
    (weight_grid(x, 8)(x) * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert x.grad.tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("bits", [1, 9, 4.5, None])
def test_other_widths_are_refused(bits):
    with pytest.raises(SpikestrapError, match="bits must be a whole number from 2 to 8"):
        weight_grid(torch.ones(1), bits)


@pytest.mark.parametrize("bits", range(2, 8))
@pytest.mark.parametrize("worst", [float("nan"), float("inf"), -float("inf")])
def test_no_grid_fits_weights_that_are_not_finite(bits, worst):
    with pytest.raises(SpikestrapError, match=r"expected finite weights, got (nan|inf)"):
        weight_grid(torch.tensor([0.5, worst]), bits)


def test_eight_bits_have_one_grid_whatever_the_weights():
    for weight in (torch.tensor([]), torch.tensor([1e-9]), torch.tensor([float("inf"), 1.0])):
        assert weight_grid(weight, 8) == weight_grid(torch.ones(1), 8)


def test_the_step_is_never_below_an_even_integer():
    assert weight_grid(torch.tensor([3.2 / 64]), 4).step == 2 / 64
