import math

import pytest
import torch
from scipy.integrate import quad
from tests.plain import SLOPE_SHAPES

from spikestrap import SpikestrapError
from spikestrap.neuron import SURROGATES, spike
from spikestrap.neuron.surrogate import get_surrogate

EVERY = pytest.mark.parametrize("surrogate", SURROGATES.values(), ids=list(SURROGATES))
# Both sides of the kink at 0, and far out.
POINTS = torch.tensor([-60, -7.0, -1.3, -0.2, -1e-3, 1e-3, 0.4, 1.0, 5.0, 80], dtype=torch.float64)


@EVERY
def test_h_has_its_closed_form(surrogate):
    expected = [SLOPE_SHAPES[surrogate.name](x) for x in POINTS.tolist()]
    assert surrogate.h(POINTS).tolist() == pytest.approx(expected, rel=1e-12)
    assert surrogate.h(torch.zeros(())).item() == 1


@EVERY
def test_h_is_the_derivative_of_the_integral(surrogate):
    eps = 1e-5
    difference = surrogate.integral(POINTS + eps) - surrogate.integral(POINTS - eps)
    torch.testing.assert_close(difference / (2 * eps), surrogate.h(POINTS), rtol=1e-4, atol=1e-9)


@EVERY
def test_integral_runs_from_0_to_2(surrogate):
    x = torch.linspace(-40, 40, 401, dtype=torch.float64)
    integral = surrogate.integral(x)
    assert (integral.diff() >= 0).all()
    ends = surrogate.integral(torch.tensor([-1e9, 0, 1e9], dtype=torch.float64))
    assert ends.tolist() == pytest.approx([0, 1, 2], abs=1e-8)


@EVERY
@pytest.mark.parametrize(("tau", "scale"), [(1.0, 1.0), (0.5, 3.0)])
def test_area_under_the_slope_is_scale_grad(surrogate, tau, scale):
    threshold = 1.7

    def slope(v):
        v = torch.tensor(v, dtype=torch.float64, requires_grad=True)
        spike(v, torch.tensor(threshold, dtype=torch.float64), surrogate, tau, scale).backward()
        return v.grad.item()

    def at_distance(log):  # the tails are long, so integrate over log |v - threshold|
        d = math.exp(log)
        return (slope(threshold + d) + slope(threshold - d)) * d

    area, _ = quad(at_distance, -12, 12, limit=200, epsabs=1e-6)
    assert area == pytest.approx(scale, rel=1e-4)
    assert slope(threshold) == pytest.approx(scale / (2 * tau * threshold))


def test_spike_is_strict():
    v = torch.tensor([1.0, 1.0]).nextafter(torch.tensor([0.0, 2.0]))
    threshold = torch.tensor(1.0)
    v = torch.stack([v[0], threshold, v[1]])
    assert spike(v, threshold, SURROGATES["arctan"]).tolist() == [0, 0, 1]


@EVERY
def test_threshold_gets_the_opposite_gradient(surrogate):
    v = torch.randn(50, requires_grad=True)
    threshold = torch.tensor(0.8, requires_grad=True)
    weight = torch.randn(50)
    (spike(v, threshold, surrogate, 0.7, 1.3) * weight).sum().backward()
    torch.testing.assert_close(threshold.grad, -v.grad.sum())


@pytest.mark.parametrize("name", ["sigmoid", None, []])
def test_unknown_name_lists_the_known(name):
    with pytest.raises(SpikestrapError, match="exponential, fast_sigmoid, arctan; got"):
        get_surrogate(name)
