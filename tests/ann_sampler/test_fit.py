import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import lsq_linear

from spikestrap.ann_sampler import fit as fitting
from spikestrap.ann_sampler.fit import (
    Fit,
    Ramp,
    escape_slopes,
    fit_curve,
    fit_slopes,
    idle_slope,
    is_constant,
    misfit_by_fall,
    rescaled_slopes,
    smooth_slopes,
)
from spikestrap.ann_sampler.histogram import ROWS, add_pairs, num_bins
from spikestrap.neuron import ALIF, CUBA, IF, LIF, PLIF, RefractoryLIF

inputs = st.one_of(
    st.floats(-3, 3, width=32),
    st.floats(-(2.0**100), 2.0**100, width=32),
    st.sampled_from([0.0, -0.0, 1.0, 1e30, -1e30, 1e-40, 1e-7, 2.0**24, 2.0**-24]),
)


def sums_of(z, a):
    as_tensor = lambda x: torch.as_tensor(x, dtype=torch.float32).view(-1, 1)  # noqa: E731
    sums = torch.zeros(1, len(ROWS), num_bins(5), dtype=torch.float64)
    add_pairs(sums, as_tensor(z), as_tensor(a), 5)
    return sums[0].numpy()


def slopes_of(z, rates, time_steps):
    """The smooth slope that the fit gives each of the inputs z."""
    return slope_at(fit_curve(sums_of(z, rates), 64, time_steps), z)


def slope_at(fit, z):
    segment = np.clip(np.floor((z - fit.origin) / fit.width) + 1, 0, fit.values.size)
    return smooth_slopes(fit)[segment.astype(int)]


def rates_of(neuron, z, time_steps):
    held = torch.from_numpy(z.astype(np.float32)).expand(time_steps, 1, -1)
    return neuron(held).detach().mean(0)[0]


def at(fit, z):
    grid = fit.origin + fit.width * np.arange(fit.values.size)
    return np.interp(z, grid, fit.values)


def objective(values, fit, sums):
    """What `fit.py` says it minimises, written out."""
    count, z, a, a2 = sums[:, sums[0] > 0]
    y = at(fit._replace(values=values), z / count)
    squares = (a2 - 2 * y * a + y**2 * count).sum() / count.sum()
    roughness = fitting._ROUGHNESS + fitting._ROUGHNESS_A_SAMPLE / count.sum()
    return squares + roughness * (np.diff(values, 2) ** 2).sum()


@given(
    st.lists(st.tuples(inputs, st.floats(0, 1, width=32)), min_size=1, max_size=40),
    st.integers(1, 20),
    st.sampled_from([4, 5, 64, 250]),
)
def test_any_data_gives_a_monotone_rate(pairs, time_steps, cells):
    fit = fit_curve(sums_of(*zip(*pairs, strict=True)), cells, time_steps)
    assert fit.values.shape == (cells + 1,)
    assert np.isfinite([fit.origin, fit.width, *fit.values]).all()
    assert np.float32(fit.width) > 0
    assert np.isfinite(np.float32(fit.origin + cells * fit.width))
    assert (np.diff(fit.values) >= 0).all()
    assert fit.values[0] >= 0
    assert fit.values[-1] <= 1
    assert 0 <= fit.residual <= 1
    for slopes in (
        fit_slopes(fit),
        smooth_slopes(fit),
        rescaled_slopes(fit),
        escape_slopes(fit),
    ):
        assert slopes.shape == (cells + 2,)
        assert np.isfinite(slopes.astype(np.float32)).all()
        assert (slopes >= 0).all()
    assert (escape_slopes(fit).astype(np.float32) > 0).all()


@given(st.integers(0, 2**32 - 1), st.sampled_from([8, 33]), st.floats(0.2, 0.9))
def test_is_the_least_squares_solution(seed, cells, top):
    """Against scipy's bounded least squares; the bound at 1 is out of reach."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=300)
    a = top * (rng.uniform(size=300) < 1 / (1 + np.exp(-3 * z)))
    sums = sums_of(z, a)
    fit = fit_curve(sums, cells, 4)

    count, z_sum, a_sum, _ = sums[:, sums[0] > 0]
    total = count.sum()
    position = np.clip((z_sum / count - fit.origin) / fit.width, 0, cells)
    to_values = np.tril(np.ones((cells + 1, cells + 1)))
    interpolate = np.array(
        [np.interp(position, np.arange(cells + 1), e) for e in np.eye(cells + 1)]
    )
    second = np.diff(np.eye(cells + 1), 2, axis=0)
    roughness = fitting._ROUGHNESS + fitting._ROUGHNESS_A_SAMPLE / total
    rows = np.concatenate(
        [np.sqrt(count / total)[:, None] * interpolate.T, np.sqrt(roughness) * second]
    )
    target = np.append(np.sqrt(count / total) * a_sum / count, np.zeros(cells - 1))
    solution = lsq_linear(rows @ to_values, target, (0, np.inf), tol=1e-14)
    values = to_values @ solution.x
    assert values[-1] < 1
    assert objective(fit.values, fit, sums) <= objective(values, fit, sums) + 1e-7
    np.testing.assert_allclose(
        at(fit, z), np.interp(position_of(fit, z), range(cells + 1), values), atol=2e-3
    )


def position_of(fit, z):
    return np.clip((z - fit.origin) / fit.width, 0, fit.values.size - 1)


@given(st.integers(0, 2**32 - 1))
def test_no_monotone_change_is_better_where_the_rate_saturates(seed):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=400)
    sums = sums_of(z, z + 0.3 * rng.normal(size=400) > 0)
    fit = fit_curve(sums, 16, 4)
    best = objective(fit.values, fit, sums)
    for size in (1e-3, 1e-2, 0.1, 1.0):
        for _ in range(20):
            other = np.sort(np.clip(fit.values + size * rng.normal(size=17), 0, 1))
            mixed = fit.values + rng.uniform() * (other - fit.values)  # feasible: a convex set
            assert best <= objective(mixed, fit, sums) + 1e-6


@pytest.mark.parametrize("scale", [1e-5, 1.0, 3e4])
@pytest.mark.parametrize("top", [0.25, 0.5, 1.0])
def test_recovers_a_ramp_of_any_scale_and_height(scale, top):
    z = np.linspace(-1, 2, 20001)
    rate = lambda x: top * np.clip(x, 0, 1)  # noqa: E731
    fit = fit_curve(sums_of(scale * z, rate(z)), 64, 8)
    probe = np.linspace(-3, 4, 501)
    np.testing.assert_allclose(at(fit, scale * probe), rate(probe), atol=0.02)
    # A layer that saturates below 1 is not taken for one that reaches it.
    assert at(fit, 1e6 * scale) == pytest.approx(top, abs=0.01)
    assert fit.residual < 0.01


def test_residual_is_the_scatter_around_the_curve():
    z = np.linspace(-1, 1, 20001)
    scatter = 0.2 * (-1.0) ** np.arange(z.size)
    fit = fit_curve(sums_of(z, 0.5 + 0.2 * np.tanh(3 * z) + scatter), 64, 8)
    assert fit.residual == pytest.approx(0.2, abs=0.005)


@pytest.mark.parametrize(("shift", "scale"), [(0, 1), (1, 10), (-20, 100), (0, 1e-3)])
def test_the_grid_follows_the_data(shift, scale):
    z = np.linspace(-1, 1, 5001)
    fit = fit_curve(sums_of(scale * z + shift, np.clip(5 * z, 0, 1)), 64, 4)
    grid = fit.origin + fit.width * np.arange(65)
    rising = shift + scale * np.array([0.02, 0.18])
    assert grid[0] < rising[0] < rising[1] < grid[-1]
    assert fit.width < 0.02 * scale
    np.testing.assert_allclose(at(fit, rising), [0.1, 0.9], atol=0.05)


@pytest.mark.parametrize("outlier", [1e4, 1e30])
def test_a_few_outliers_leave_the_resolution(outlier):
    z = np.linspace(-1, 2, 20001)
    rate = np.clip(z, 0, 1) * 0.8
    fit = fit_curve(sums_of(np.append(z, [outlier, -outlier]), np.append(rate, [1.0, 0.0])), 64, 8)
    np.testing.assert_allclose(at(fit, z), rate, atol=0.05)


def test_gaps_in_the_data_are_bridged():
    z = np.concatenate([np.linspace(-1, 0.2, 3000), np.linspace(0.8, 2, 3000)])
    fit = fit_curve(sums_of(z, np.clip(z, 0, 1)), 64, 8)
    probe = np.linspace(-1, 2, 301)
    np.testing.assert_allclose(at(fit, probe), np.clip(probe, 0, 1), atol=0.03)


def test_slopes_by_hand():
    fit = Fit(1.0, 0.5, np.array([0.1, 0.1, 0.4, 0.8, 0.8]), 0.0, Ramp(1.0, 3.0, 0.5))
    assert fit_slopes(fit).tolist() == pytest.approx([0, 0, 0.6, 0.8, 0, 0])
    # In units of the mean slope 0.8 / 3: the last value over where the grid ends.
    expected = [x * 3 / 0.8 + 1e-5 for x in (0, 0, 0.6, 0.8, 0, 0)]
    assert rescaled_slopes(fit).tolist() == pytest.approx(expected)
    assert escape_slopes(fit).tolist() == pytest.approx([0.5 / 3] * 6)


def test_inputs_of_nothing_do_not_make_a_slope_without_bound():
    fit = fit_curve(sums_of(np.zeros(100), np.zeros(100)), 64, 2)
    assert is_constant(fit)
    assert escape_slopes(fit).tolist() == [1.0] * 66


def test_of_a_silent_layer_all_inputs_escape_by_a_slope_of_their_scale():
    z = np.random.default_rng(0).normal(size=20_000)
    fit = fit_curve(sums_of(z, np.zeros(z.size)), 64, 4)
    assert fit.origin < z.min()
    assert fit.origin + 64 * fit.width > z.max()
    # Over the largest input there may be, and half of the range of all on either side.
    assert escape_slopes(fit)[0] == pytest.approx(0.5 / (1.5 * np.abs(z).max()), rel=0.15)


@pytest.mark.parametrize("samples", [8, 1000, 100_000])
@pytest.mark.parametrize("rate", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_the_same_rate_everywhere_is_constant(samples, rate, spread):
    z = 0.6 + spread * np.linspace(-1, 1, samples)
    assert is_constant(fit_curve(sums_of(z, np.full(samples, rate)), 64, 4))
    rising = np.linspace(0, 1, samples)
    assert not is_constant(fit_curve(sums_of(rising, (rising > 0.5) / 4), 64, 4))


@pytest.mark.parametrize("samples", [2000, 20_000])
@pytest.mark.parametrize("time_steps", [1, 2, 4, 16, 64])
def test_a_rate_that_jumps_has_a_slope_around_the_jump(time_steps, samples):
    """A neuron without memory fires at every step or never: one step, whatever T."""
    z = np.random.default_rng(0).normal(size=samples)
    fit = fit_curve(sums_of(z, z > 1), 64, time_steps)
    assert slope_at(fit, np.linspace(0.1, 1.9, 101)).min() > 0.05


@pytest.mark.parametrize("time_steps", [1, 2, 4, 32])
@pytest.mark.parametrize("cells", [16, 64, 250])
def test_smooth_slopes_spread_the_rise(time_steps, cells):
    """The window slides over the curve, so the area under the slope stays what the curve rises."""
    z = np.linspace(-2, 3, 20001)
    rate = np.clip(np.floor(time_steps * z + 0.5) / time_steps, 0, 1)
    fit = fit_curve(sums_of(z, rate), cells, time_steps)
    slopes = smooth_slopes(fit)
    rise = fit.values[-1] - fit.values[0]
    assert slopes.sum() * fit.width == pytest.approx(rise, rel=0.1)
    # No step of the rates leaves a hole: it is positive wherever the rate changes.
    assert (slope_at(fit, np.linspace(0.5 / time_steps, 1 - 0.5 / time_steps, 101)) > 0.2).all()
    assert slopes.max() <= max(fit_slopes(fit).max(), 1) + 1e-9


@pytest.mark.parametrize("threshold", [1e-3, 1.0, 8.0])
@pytest.mark.parametrize("time_steps", [4, 64])
def test_beyond_the_ramp_only_idle_channels_have_a_slope(time_steps, threshold):
    """By hand: rates rounded to k/T are a ramp up to the threshold; a twentieth of its slope."""
    z = threshold * np.linspace(-0.5, 1.5, 20001)
    rate = np.clip(np.floor(time_steps * z / threshold + 0.5) / time_steps, 0, 1)
    fit = fit_curve(sums_of(z, rate), 64, time_steps)
    assert not slope_at(fit, threshold * np.array([-1e3, -1.0, -0.3, 1.3, 2.0, 1e3])).any()
    assert idle_slope(fit) * threshold == pytest.approx(0.05, rel=0.1)


@pytest.mark.parametrize(
    ("neuron", "time_steps", "mean", "spread"),
    [
        (LIF(1.0, 0.1), 4, 0.25, 1.0),
        (CUBA(1.0, 0.5, 0.1), 4, 0.25, 1.0),
        (PLIF(1.0, reset="subtract"), 8, 0.5, 0.3),
        (PLIF(1.0, reset="subtract"), 32, 0.5, 0.3),
        (ALIF(1.0, 0.2, 1.0, 0.1, reset="subtract"), 8, -0.5, 0.3),
        (RefractoryLIF(1.0, 0.5, reset="none"), 4, -0.5, 1.0),
    ],
)
def test_of_uneven_inputs_too_it_spreads_the_rise_over_the_grid(neuron, time_steps, mean, spread):
    normal = np.random.default_rng(0).normal
    z = mean + spread * normal(size=(1, 256, 100)) + 0.2 * normal(size=(time_steps, 256, 100))
    z = torch.from_numpy(z.astype(np.float32))
    fit = fit_curve(
        sums_of(z.mean(0).flatten(), neuron(z).detach().mean(0).flatten()), 64, time_steps
    )
    area = smooth_slopes(fit).sum() * fit.width
    assert area == pytest.approx(np.ptp(fit.values), rel=0.1)


@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
@pytest.mark.parametrize("time_steps", [1, 2, 4, 16])
@pytest.mark.parametrize("threshold", [1e-3, 0.1, 0.3, 1.0])
def test_at_any_threshold_and_v_init_many_inputs_learn(threshold, time_steps, reset):
    """However steeply rates rise: of normal inputs, nearly half."""
    z = np.random.default_rng(0).normal(size=20_000)
    for share in (0.0, 0.5, 0.9, 0.99, 1.0):
        neuron = IF(threshold, reset=reset, v_init=share * threshold)
        slopes = slopes_of(z, rates_of(neuron, z, time_steps), time_steps)
        assert (slopes > 0).mean() > 0.4
        assert slopes.max() < 2


@pytest.mark.parametrize("neuron", [IF(1.0, v_init=0.5), LIF(1.0, 0.1), PLIF(1.0)])
@pytest.mark.parametrize("time_steps", [2, 4, 16, 64])
@pytest.mark.parametrize("mean", [-2.0, -1.0, 1.0, 2.0, 3.0])
def test_wherever_most_inputs_lie_many_learn(mean, time_steps, neuron):
    """Also where a few in a hundred fire at all, or hardly any at less than every step."""
    z = mean + np.random.default_rng(0).normal(size=20_000)
    rates = rates_of(neuron, z, time_steps)
    assert 0 < rates.mean() < 1
    assert (slopes_of(z, rates, time_steps) > 0).mean() > 0.3


@pytest.mark.parametrize("time_steps", [2, 4, 16, 64])
@pytest.mark.parametrize("spread", [0.5, 1.0])
def test_with_a_leak_inputs_below_the_first_spike_learn(spread, time_steps):
    """A leak of a half: nothing fires at less than the threshold; inputs from 0 on learn."""
    z = spread * np.random.default_rng(0).normal(size=20_000)
    rates = rates_of(PLIF(1.0), z, time_steps)
    assert rates[z < 1].max() == 0
    assert slopes_of(z, rates, time_steps)[(z > 0) & (z < 1)].min() > 0.02


@pytest.mark.parametrize("time_steps", [4, 16])
def test_a_wide_part_of_the_inputs_leaves_the_curve_its_resolution(time_steps):
    """Half of them within one threshold, half up to 255: the narrow half has its right rates."""
    z = np.random.default_rng(0).uniform(size=20_000)
    z[::2] *= 255
    rates = rates_of(IF(1.0, reset="subtract", v_init=0.5), z, time_steps)
    assert fit_curve(sums_of(z, rates), 64, time_steps).residual < 0.03


@pytest.mark.parametrize("time_steps", [1, 4])
def test_of_a_step_far_from_0_the_slope_stays_where_inputs_are(time_steps):
    z = 10 + np.linspace(-1, 1, 8001)
    slopes = slopes_of(z, z > 10, time_steps)
    assert (slopes > 0).mean() > 0.4
    assert slopes.sum() * (z[1] - z[0]) == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize("time_steps", [2, 4, 16])
def test_a_staircase_far_from_an_input_of_0_keeps_its_slope(time_steps):
    z = 10 + np.linspace(-0.5, 1.5, 12_801)
    rate = np.clip(np.floor((z - 10) * time_steps + 0.5) / time_steps, 0, 1)
    fit = fit_curve(sums_of(z, rate), 64, time_steps)
    np.testing.assert_allclose(slope_at(fit, np.linspace(10.4, 10.6, 21)), 1, atol=0.15)


@pytest.mark.parametrize("samples", [2000, 20_000])
@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_the_misfit_by_a_fall_by_hand(samples, noise):
    """Of rates that fall evenly from 1 to 0 it is their spread, whatever their scatter."""
    z = np.linspace(0, 1, samples)
    scatter = noise * np.random.default_rng(0).normal(size=samples)
    assert misfit_by_fall(sums_of(z, 1 - z + scatter)) == pytest.approx(12**-0.5, abs=0.01)
    assert misfit_by_fall(sums_of(z, z + scatter)) == 0
    # Up and down evenly: the best follows up to c and stays there, and c is the mean of the rest.
    c, band = 2 - 2**0.5, np.minimum(2 * z, 2 - 2 * z)
    expected = (2 * (1 - c) ** 3 + c**3) / 6
    assert misfit_by_fall(sums_of(z, band + scatter)) == pytest.approx(expected**0.5, abs=0.01)


@pytest.mark.parametrize("samples", [1, 8, 50, 200, 5000])
def test_noise_is_no_fall(samples):
    for seed in range(20):
        random = np.random.default_rng(seed)
        z, rates = random.normal(size=samples), random.integers(0, 3, samples) / 2
        assert misfit_by_fall(sums_of(z, rates)) < 0.1
        assert misfit_by_fall(sums_of(np.zeros(samples), rates)) == 0
