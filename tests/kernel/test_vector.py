import numba
import numpy as np

from spikestrap.kernel import vector


@numba.njit
def over(x, exps, sigmoids, signs):
    for i in range(x.size):
        exps[i] = vector.exp(x[i])
        sigmoids[i] = vector.sigmoid(x[i])
        signs[i] = vector.sign(x[i])


def test_against_double_precision():
    special = [0.0, -0.0, np.inf, -np.inf, 88.72, 88.73, -87.4, -103.9, -105, 1e-30, 5e8, -5e8]
    x = np.concatenate([np.linspace(-104, 88.7, 200_001), np.linspace(-1, 1, 200_001), special])
    x = x.astype(np.float32)
    exps, sigmoids, signs = np.empty_like(x), np.empty_like(x), np.empty_like(x)
    over(x, exps, sigmoids, signs)
    with np.errstate(over="ignore"):
        expected = np.exp(x.astype(np.float64))
        as_float = expected.astype(np.float32)
    ulps = np.spacing(np.where(np.isfinite(as_float), as_float, np.float32(1)))
    as_float[x < -125 * np.log(2)] = expected[x < -125 * np.log(2)] = 0
    finite = np.isfinite(as_float)
    assert np.all(np.abs(exps[finite] - expected[finite]) <= 2 * ulps[finite])
    assert np.array_equal(exps[~finite], as_float[~finite])
    sigmoid = 1 / (1 + np.exp(-np.clip(x.astype(np.float64), -700, 700)))
    normal = sigmoid > 1e-37
    assert np.all(np.abs(sigmoids - sigmoid)[normal] <= 4e-7 * sigmoid[normal])
    assert np.array_equal(signs, np.sign(x))


def test_nan_stays():
    x = np.array([np.nan], np.float32)
    exps, sigmoids, signs = np.empty_like(x), np.empty_like(x), np.empty_like(x)
    over(x, exps, sigmoids, signs)
    assert np.isnan(exps[0])
    assert np.isnan(sigmoids[0])


def test_channels():
    out = np.empty(7, np.float32)
    vector.spread(np.array([1, 2, 3], np.float32), 3, 2, out)
    assert out.tolist() == [2, 3, 3, 1, 1, 2, 2]
    sums = np.zeros(3)
    vector.gather(out, 3, 2, sums)
    assert sums.tolist() == [2, 6, 6]
