"""What one operation of a step is in LLVM's terms: float32 arithmetic that it vectorizes.

Nothing is contracted or reordered, so that results are the reference's to the bit wherever
torch rounds as IEEE 754 says. `exp` is within 2 units in the last place, and 0 where it is
below 2**-125; `sigmoid` is within 4. log, sin, cos, tanh and pow are libm's, called one
value at a time.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable

from llvmlite import ir

FLOAT, BOOL, INDEX, INT = ir.FloatType(), ir.IntType(1), ir.IntType(64), ir.IntType(32)
BYTE = ir.IntType(8)

Operation = Callable[..., ir.Value]
_LN2 = math.log(2)
# ln 2 in two parts, the first with few enough bits that its multiples are exact.
_LN2_HIGH = 0.693359375
_ROUND = 1.5 * 2**23  # adding it leaves no place for a fraction
_FRACTION_BITS = ir.Constant(INT, 23)
# (exp(r) - 1 - r) / r**2, interpolated at the Chebyshev nodes of |r| <= ln 2 / 2.
_EXP = (0.4999999794, 0.1666657703, 0.04166724039, 0.008363173075, 0.001388050416)


def number(value: float) -> ir.Constant:
    """A literal, rounded to float32."""
    return ir.Constant(FLOAT, float(value))


_ZERO, _ONE = number(0), number(1)


def _fma(b: ir.IRBuilder, x: ir.Value, y: ir.Value, z: ir.Value) -> ir.Value:
    """x y + z, rounded once where the processor has it as one instruction."""
    kind = ir.FunctionType(FLOAT, [FLOAT] * 3)
    return b.call(b.module.declare_intrinsic("llvm.fmuladd", [FLOAT], kind), [x, y, z])


def _exp(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """exp(x): x = n ln 2 + r with |r| <= ln 2 / 2, and a polynomial for exp(r)."""
    highest, lowest = number(89), number(-125 * _LN2)
    y = b.select(b.fcmp_ordered(">", x, highest), highest, x)  # NaN stays
    y = b.select(b.fcmp_ordered("<", y, lowest), lowest, y)
    rounded = _fma(b, y, number(1 / _LN2), number(_ROUND))  # its last bits are n
    n = b.fsub(rounded, number(_ROUND))
    r = _fma(b, n, number(-_LN2_HIGH), y)
    r = _fma(b, n, number(_LN2_HIGH - _LN2), r)
    *coefficients, p = map(number, _EXP)
    for coefficient in reversed(coefficients):
        p = _fma(b, r, p, coefficient)
    p = b.fadd(_ONE, _fma(b, b.fmul(r, r), p, r))
    # 2**128 is not a float, but 2 * 2**127 may well be times p.
    offset = 126 - struct.unpack("i", struct.pack("f", _ROUND))[0]
    exponent = b.shl(b.add(b.bitcast(rounded, INT), ir.Constant(INT, offset)), _FRACTION_BITS)
    e = b.fmul(b.fadd(p, p), b.bitcast(exponent, FLOAT))
    return b.select(b.fcmp_ordered("<", x, lowest), _ZERO, e)


def _sigmoid(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    return b.fdiv(_ONE, b.fadd(_ONE, _exp(b, b.fneg(x))))


def _sign(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    above = b.select(b.fcmp_ordered(">", x, _ZERO), _ONE, _ZERO)
    return b.fsub(above, b.select(b.fcmp_ordered("<", x, _ZERO), _ONE, _ZERO))


def _extreme(comparison: str) -> Operation:
    """Of two, as torch has it: NaN if one is."""

    def extreme(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
        first = b.or_(b.fcmp_ordered(comparison, x, y), b.fcmp_unordered("uno", x, x))
        return b.select(first, x, y)

    return extreme


def _bound(comparison: str) -> Operation:
    return lambda b, x, bound: b.select(b.fcmp_ordered(comparison, x, bound), bound, x)


def _compare(comparison: str) -> Operation:
    return lambda b, x, y: b.fcmp_ordered(comparison, x, y)


def _intrinsic(name: str) -> Operation:
    return lambda b, x: b.call(b.module.declare_intrinsic(f"llvm.{name}", [FLOAT]), [x])


def _libm(name: str) -> Operation:
    def call(b: ir.IRBuilder, *values: ir.Value) -> ir.Value:
        function = b.module.globals.get(name)
        if function is None:
            function = ir.Function(b.module, ir.FunctionType(FLOAT, [FLOAT] * len(values)), name)
            function.attributes.add("nounwind")
        return b.call(function, values)

    return call


def _chip_decay(b: ir.IRBuilder, x: ir.Value, decay: ir.Value) -> ir.Value:
    """As `neuron.chip` has it: whole numbers, exact in double precision."""
    double = ir.DoubleType()
    unity = ir.Constant(double, 4096.0)
    kept = b.fsub(unity, b.fmul(unity, b.fpext(decay, double)))
    kept = b.fmul(b.fpext(x, double), kept)
    truncated = b.call(b.module.declare_intrinsic("llvm.trunc", [double]), [kept])
    return b.fptrunc(b.fdiv(truncated, unity), FLOAT)


# Per op of `expression`: (builder, *values) to the result.
OPERATIONS: dict[str, Operation] = {
    "add": lambda b, x, y: b.fadd(x, y),
    "sub": lambda b, x, y: b.fsub(x, y),
    "mul": lambda b, x, y: b.fmul(x, y),
    "div": lambda b, x, y: b.fdiv(x, y),
    "neg": lambda b, x: b.fneg(x),
    "abs": _intrinsic("fabs"),
    "exp": _exp,
    "log": _libm("logf"),
    "sqrt": _intrinsic("sqrt"),
    "sin": _libm("sinf"),
    "cos": _libm("cosf"),
    "tanh": _libm("tanhf"),
    "sigmoid": _sigmoid,
    "floor": _intrinsic("floor"),
    "ceil": _intrinsic("ceil"),
    "round": _intrinsic("rint"),
    "sign": _sign,
    "pow": _libm("powf"),
    "maximum": _extreme(">"),
    "minimum": _extreme("<"),
    "relu": lambda b, x: b.select(b.fcmp_ordered("<", x, _ZERO), _ZERO, x),
    "clamp_min": _bound("<"),
    "clamp_max": _bound(">"),
    "where": lambda b, condition, x, y: b.select(condition, x, y),
    "gt": _compare(">"),
    "ge": _compare(">="),
    "lt": _compare("<"),
    "le": _compare("<="),
    "eq": _compare("=="),
    "ne": lambda b, x, y: b.fcmp_unordered("!=", x, y),  # NaN differs from all
    "and": lambda b, x, y: b.and_(x, y),
    "or": lambda b, x, y: b.or_(x, y),
    "xor": lambda b, x, y: b.xor(x, y),
    "not": lambda b, x: b.not_(x),
    "float": lambda b, x: b.select(x, _ONE, _ZERO),
    "spike": lambda b, x: b.select(b.fcmp_ordered(">", x, _ZERO), _ONE, _ZERO),
    "detach": lambda b, x: x,
    "stand_in": lambda b, x, smooth: x,
    "chip_decay": _chip_decay,
}
