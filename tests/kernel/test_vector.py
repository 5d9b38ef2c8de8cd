import ctypes

import numpy as np
import pytest
from llvmlite import ir

from spikestrap.kernel import native
from spikestrap.kernel.vector import FLOAT, OPERATIONS, ROUGH_OPERATIONS, vector


def over(op, x, lanes=16):
    """The operation, of that name or itself, on each of x, as machine code, so many at a time."""
    op = OPERATIONS.get(op, op)
    index, pointer = ir.IntType(64), ir.PointerType()
    module = ir.Module("test")
    kernel = ir.Function(
        module, ir.FunctionType(ir.VoidType(), [index, pointer, pointer]), "kernel"
    )
    count, source, into = kernel.args
    entry, loop, end = (kernel.append_basic_block() for _ in range(3))
    ir.IRBuilder(entry).branch(loop)
    b = ir.IRBuilder(loop)
    i = b.phi(index)
    value = b.load(b.gep(source, [i], source_etype=FLOAT), typ=vector(FLOAT, lanes), align=4)
    b.store(op(b, value), b.gep(into, [i], source_etype=FLOAT), align=4)
    i.add_incoming(ir.Constant(index, 0), entry)
    following = b.add(i, ir.Constant(index, lanes))
    i.add_incoming(following, loop)
    b.cbranch(b.icmp_signed("<", following, count), loop, end)
    ir.IRBuilder(end).ret_void()
    run = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)(
        native.load(str(module))
    )
    values = np.resize(np.asarray(x, np.float32), -(-len(x) // lanes) * lanes)
    out = np.empty_like(values)
    run(len(values), values.ctypes.data, out.ctypes.data)
    return out[: len(x)]


def test_against_double_precision():
    special = [0.0, -0.0, np.inf, -np.inf, 88.72, 88.73, -87.4, -103.9, -105, 1e-30, 5e8, -5e8]
    x = np.concatenate([np.linspace(-104, 88.7, 200_001), np.linspace(-1, 1, 200_001), special])
    x = x.astype(np.float32)
    exps, sigmoids, signs = (over(op, x) for op in ("exp", "sigmoid", "sign"))
    with np.errstate(over="ignore"):
        expected = np.exp(x.astype(np.float64))
        as_float = expected.astype(np.float32)
    ulps = np.spacing(np.where(np.isfinite(as_float), as_float, np.float32(1)))
    as_float[x < -125.5 * np.log(2)] = expected[x < -125.5 * np.log(2)] = 0
    finite = np.isfinite(as_float)
    assert np.all(np.abs(exps[finite] - expected[finite]) <= 1.3 * ulps[finite])
    assert np.array_equal(exps[~finite], as_float[~finite])
    sigmoid = 1 / (1 + np.exp(-np.clip(x.astype(np.float64), -700, 700)))
    normal = sigmoid > 1e-37
    assert np.all(np.abs(sigmoids - sigmoid)[normal] <= 4e-7 * sigmoid[normal])
    assert np.array_equal(signs, np.sign(x))


def test_the_rough_exp():
    x = np.concatenate([np.linspace(-86.9, 88.7, 200_001), [0.0, 89.5, np.inf, -88, -np.inf]])
    x = x.astype(np.float32)
    with np.errstate(over="ignore"):
        expected = np.exp(x.astype(np.float64)).astype(np.float32)
    expected[x < -87] = 0
    near = np.abs(x) < 1
    found = over(ROUGH_OPERATIONS["exp"], x)
    np.testing.assert_allclose(found, expected, rtol=5e-6)
    np.testing.assert_allclose(found[near], expected[near], rtol=1e-6)
    assert np.isnan(over(ROUGH_OPERATIONS["exp"], [np.nan])).all()


@pytest.mark.parametrize("exp", [OPERATIONS["exp"], ROUGH_OPERATIONS["exp"]])
def test_exp_of_what_is_never_positive(exp):
    """It is not bounded from above then, and gives the same."""
    x = np.array([0, -0.0, 1e-30, -3, 3, 88, -88, 1e30, np.inf, -np.inf, np.nan], np.float32)
    found = over(lambda b, x: exp(b, OPERATIONS["neg"](b, OPERATIONS["abs"](b, x))), x)
    assert np.array_equal(found, over(exp, -np.abs(x)), equal_nan=True)


def test_a_result_does_not_depend_on_its_place():
    x = np.linspace(-90, 90, 37)
    for op in ("exp", "sigmoid"):
        assert np.array_equal(over(op, x), over(op, x, lanes=1))


@pytest.mark.parametrize("op", ["exp", "sigmoid"])
def test_nan_stays(op):
    assert np.isnan(over(op, [np.nan] * 20)).all()


@pytest.mark.parametrize(
    ("op", "function"),
    [("log", np.log), ("sin", np.sin), ("cos", np.cos), ("tanh", np.tanh), ("sqrt", np.sqrt)],
)
def test_functions_of_libm(op, function):
    x = np.linspace(0.1, 5, 50, dtype=np.float32)
    np.testing.assert_allclose(over(op, x), function(x), rtol=1e-6)


def test_rounding():
    x = np.array([-1.5, -0.5, 0.5, 1.5, 2.5, 1.2], np.float32)
    assert over("round", x).tolist() == [-2, 0, 0, 2, 2, 1]
    assert over("floor", x).tolist() == [-2, -1, 0, 1, 2, 1]
    assert over("ceil", x).tolist() == [-1, 0, 1, 2, 3, 2]
