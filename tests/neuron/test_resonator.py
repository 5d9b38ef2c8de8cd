"""What all resonators share: the rotation, against complex numbers of plain Python."""

import cmath
import math

import pytest
import torch
from tests.neuron.cases import RESONATORS, draw_parameters

from spikestrap import SpikestrapError
from spikestrap.neuron import LIF

resonators = pytest.mark.parametrize("kind", RESONATORS, ids=lambda kind: kind.__name__)


def draw(dtype):
    return torch.randn(12, 4, 3, dtype=dtype, generator=torch.Generator().manual_seed(3))


@resonators
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_rotates_like_complex_numbers(kind, dtype):
    values = draw_parameters(kind, 5) | {"threshold": 1e6}
    period, decay = values["period"].item(), values["decay"].item()
    z = draw(dtype)
    _, (x, y, *_) = kind(**values).double()(z, return_state=True)
    for n in range(4):
        for c in range(3):
            state = 0j
            for z_t in z[:, n, c].tolist():
                state = state * (1 - decay) * cmath.exp(2j * math.pi / period) + z_t
            assert x[n, c].item() == pytest.approx(state.real, abs=1e-9)
            assert y[n, c].item() == pytest.approx(state.imag, abs=1e-9)


@resonators
def test_a_real_input_is_a_complex_one_without_imaginary_part(kind):
    neuron, z = kind(**draw_parameters(kind, 5)), 2 * draw(torch.float32)
    spikes, state = neuron(z, return_state=True)
    as_complex, state_complex = neuron(torch.complex(z, 0 * z), return_state=True)
    assert as_complex.dtype is torch.float32
    assert torch.equal(spikes, as_complex)
    assert all(torch.equal(a, b) for a, b in zip(state, state_complex, strict=True))
    held = neuron(torch.complex(z, z)[:1], time_steps=12)
    assert torch.equal(held, neuron(torch.complex(z, z)[:1].repeat(12, 1, 1)))


@resonators
def test_complex_input_in_chunks_and_backward(kind):
    neuron, z = kind(**draw_parameters(kind, 6)), 3 * draw(torch.complex64)
    z.requires_grad_()
    whole, end = neuron(z, return_state=True)
    first, state = neuron(z[:5], return_state=True)
    rest, last = neuron(z[5:], state, return_state=True)
    assert whole.sum() > 0
    assert torch.equal(whole, torch.cat([first, rest]))
    assert all(torch.equal(a, b) for a, b in zip(end, last, strict=True))
    whole.sum().backward()
    assert torch.isfinite(torch.view_as_real(z.grad)).all()
    assert (z.grad.imag != 0).any()


def test_other_neurons_refuse_complex_input():
    with pytest.raises(SpikestrapError, match=r"LIF: expected a floating-point z, got .*complex64"):
        LIF(1.0, 0.1)(draw(torch.complex64))


@resonators
def test_periods_below_four_are_refused(kind):
    with pytest.raises(SpikestrapError, match=r"period must be >= 4, got 3\.9"):
        kind(**(draw_parameters(kind, 5) | {"period": 3.9}))
