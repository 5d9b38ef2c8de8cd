"""What one operation of a step is in LLVM's terms: float32 arithmetic on vectors of any length.

Nothing is contracted or reordered, so that results are the reference's to the bit wherever
torch rounds as IEEE 754 says. `exp` is within 1 unit in the last place (1.3 on a processor that
does not multiply and add in one), and 0 below 2**-125.5; `sigmoid` is within 4. log, sin, cos,
tanh and pow are libm's, called one value at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from llvmlite import ir

FLOAT, DOUBLE, INDEX, INT = ir.FloatType(), ir.DoubleType(), ir.IntType(64), ir.IntType(32)
BYTE = ir.IntType(8)
FLOAT_BYTES = 4

Operation = Callable[..., ir.Value]
_LN2 = math.log(2)
# ln 2 in two parts, the first with few enough bits that its multiples are exact.
_LN2_HIGH = 0.693359375
_LEAST = -126  # the power of two from which on downwards `exp` is 0
_ROUND = 1.5 * 2**23 - _LEAST  # adding it leaves no place for a fraction
_FRACTION_BITS = 23
# 2 exp(r) for |r| <= ln 2 / 2, within 0.03 and 1.1 units in the last place.
_EXP = (2.0, 2.00000006, 0.99999984, 0.33332896, 0.08333708, 0.0167464, 0.00276318)
_ROUGH_EXP = (2.0, 1.99999898, 0.99998274, 0.33336224, 0.0837985, 0.01653182)


def vector(kind: ir.Type, lanes: int) -> ir.VectorType:
    """The type of so many values of a kind."""
    return ir.VectorType(kind, lanes)


def number(value: float, lanes: int, kind: ir.Type = FLOAT) -> ir.Constant:
    """A literal, rounded to its kind, in each lane."""
    value = int(value) if isinstance(kind, ir.IntType) else float(value)
    return ir.Constant(vector(kind, lanes), [value] * lanes)


def splat(b: ir.IRBuilder, value: ir.Value, lanes: int) -> ir.Value:
    """One value in each lane."""
    undefined = ir.Constant(vector(value.type, lanes), ir.Undefined)
    first = b.insert_element(undefined, value, ir.Constant(INT, 0))
    return b.shuffle_vector(first, undefined, number(0, lanes, INT))


def _like(x: ir.Value, value: float, kind: ir.Type = FLOAT) -> ir.Constant:
    return number(value, x.type.count, kind)


def _as(kind: ir.Type, x: ir.Value) -> ir.VectorType:
    return vector(kind, x.type.count)


def call(b: ir.IRBuilder, name: str, result: ir.Type, *values: ir.Value) -> ir.Value:
    """Calls a function that is not the module's own, such as one of LLVM's; declared once."""
    function = b.module.globals.get(name)
    if function is None:
        kind = ir.FunctionType(result, [value.type for value in values])
        function = ir.Function(b.module, kind, name)
    return b.call(function, values)


def _intrinsic(b: ir.IRBuilder, name: str, *values: ir.Value) -> ir.Value:
    """A function of LLVM's own, which has one for each type."""
    kind = values[0].type
    letter = "f64" if kind.element == DOUBLE else "f32"
    return call(b, f"llvm.{name}.v{kind.count}{letter}", kind, *values)


def _fma(b: ir.IRBuilder, x: ir.Value, y: ir.Value, z: ir.Value) -> ir.Value:
    """x y + z, rounded once where the processor has it as one instruction."""
    return _intrinsic(b, "fmuladd", x, y, z)


def _power_of_e(
    b: ir.IRBuilder, x: ir.Value, ln2: Sequence[float], polynomial: Sequence[float]
) -> ir.Value:
    """exp(x): x = n ln 2 + r with |r| <= ln 2 / 2, the polynomial of r, times 2**(n - 1), since
    2**128 is not a float. At n = -126 the bits of 2**(n - 1) come out as those of 0.

    ln2: parts that add up to it. polynomial: of 2 exp(r).
    """
    highest, lowest = _like(x, 89), _like(x, _LEAST * _LN2)
    if not _never_positive(x):
        x = b.select(b.fcmp_ordered(">", x, highest), highest, x)  # NaN stays
    r = b.select(b.fcmp_ordered("<", x, lowest), lowest, x)
    rounded = _fma(b, r, _like(r, 1 / _LN2), _like(r, _ROUND))  # its last bits are n - _LEAST
    n = b.fsub(rounded, _like(r, _ROUND))
    for part in ln2:
        r = _fma(b, n, _like(r, -part), r)
    *coefficients, p = (_like(r, coefficient) for coefficient in polynomial)
    for coefficient in reversed(coefficients):
        p = _fma(b, r, p, coefficient)
    scale = b.shl(b.bitcast(rounded, _as(INT, r)), _like(r, _FRACTION_BITS, INT))
    return b.fmul(p, b.bitcast(scale, r.type))


def _never_positive(x: ir.Value) -> bool:
    """Whether x is seen to be -|y|, as in most surrogates: LLVM sees it, but makes no use of it."""
    inner = x.operands[0] if getattr(x, "opname", "") == "fneg" else None
    return getattr(getattr(inner, "callee", None), "name", "").startswith("llvm.fabs")


def _exp(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    return _power_of_e(b, x, (_LN2_HIGH, _LN2 - _LN2_HIGH), _EXP)


def _rough_exp(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    return _power_of_e(b, x, (_LN2,), _ROUGH_EXP)


def _sigmoid(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    return b.fdiv(_like(x, 1), b.fadd(_like(x, 1), _exp(b, b.fneg(x))))


def _as_float(b: ir.IRBuilder, condition: ir.Value) -> ir.Value:
    return b.select(condition, _like(condition, 1), _like(condition, 0))


def _above_zero(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    return _as_float(b, b.fcmp_ordered(">", x, _like(x, 0)))


def _sign(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    below = _as_float(b, b.fcmp_ordered("<", x, _like(x, 0)))
    return b.fsub(_above_zero(b, x), below)


def _relu(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    return b.select(b.fcmp_ordered("<", x, _like(x, 0)), _like(x, 0), x)


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


def _unary(name: str) -> Operation:
    return lambda b, x: _intrinsic(b, name, x)


def _libm(name: str) -> Operation:
    def call(b: ir.IRBuilder, *values: ir.Value) -> ir.Value:
        return b.call(_lane_by_lane(b.module, name, values[0].type, len(values)), values)

    return call


def _lane_by_lane(module: ir.Module, name: str, kind: ir.VectorType, arity: int) -> ir.Function:
    """A function of the module's that calls libm's for each lane."""
    own = f"{name}.{kind.count}"
    if own in module.globals:
        return module.globals[own]
    one = module.globals.get(name)
    if one is None:
        one = ir.Function(module, ir.FunctionType(FLOAT, [FLOAT] * arity), name)
        one.attributes.add("nounwind")
    made = ir.Function(module, ir.FunctionType(kind, [kind] * arity), own)
    made.linkage = "internal"
    made.attributes.add("noinline")
    b = ir.IRBuilder(made.append_basic_block())
    result = ir.Constant(kind, ir.Undefined)
    for lane in (ir.Constant(INT, k) for k in range(kind.count)):
        value = b.call(one, [b.extract_element(values, lane) for values in made.args])
        result = b.insert_element(result, value, lane)
    b.ret(result)
    return made


def _chip_decay(b: ir.IRBuilder, x: ir.Value, decay: ir.Value) -> ir.Value:
    """As `neuron.chip` has it: whole numbers, exact in double precision."""
    unity = _like(x, 4096, DOUBLE)
    kept = b.fsub(unity, b.fmul(unity, b.fpext(decay, _as(DOUBLE, x))))
    kept = b.fmul(b.fpext(x, _as(DOUBLE, x)), kept)
    return b.fptrunc(b.fdiv(_intrinsic(b, "trunc", kept), unity), x.type)


# Per op of `expression`: (builder, *values) to the result.
OPERATIONS: dict[str, Operation] = {
    "add": lambda b, x, y: b.fadd(x, y),
    "sub": lambda b, x, y: b.fsub(x, y),
    "mul": lambda b, x, y: b.fmul(x, y),
    "div": lambda b, x, y: b.fdiv(x, y),
    "neg": lambda b, x: b.fneg(x),
    "abs": _unary("fabs"),
    "exp": _exp,
    "log": _libm("logf"),
    "sqrt": _unary("sqrt"),
    "sin": _libm("sinf"),
    "cos": _libm("cosf"),
    "tanh": _libm("tanhf"),
    "sigmoid": _sigmoid,
    "floor": _unary("floor"),
    "ceil": _unary("ceil"),
    "round": _unary("rint"),
    "sign": _sign,
    "pow": _libm("powf"),
    "maximum": _extreme(">"),
    "minimum": _extreme("<"),
    "relu": _relu,
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
    "float": _as_float,
    "spike": _above_zero,
    "detach": lambda b, x: x,
    "stand_in": lambda b, x, smooth: x,
    "chip_decay": _chip_decay,
}
# What may take its place where nothing must be rounded as the reference rounds it: a quotient may
# be the product with an inverse, which is then computed once for all neurons where it is a
# parameter's; exp is within 5e-7 of itself, 5e-6 on a processor that does not multiply and add in
# one.
ROUGH_OPERATIONS: dict[str, Operation] = {
    "div": lambda b, x, y: b.fdiv(x, y, flags=("arcp",)),
    "exp": _rough_exp,
}
