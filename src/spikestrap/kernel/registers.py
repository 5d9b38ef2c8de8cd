"""Tables of up to 64 numbers looked up in registers, 16 at a time, where a processor has AVX-512.

Elsewhere a look-up is a load for each number, which no compiler vectorizes to advantage. The
functions are for numba's kernels; they take addresses, of float32 tables with room for 64.
"""

from __future__ import annotations

import functools
from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic

from .vector import BYTE, FLOAT, INT, call, number, splat, vector

LANES, ENTRIES = 16, 64
# Permutations of 32 floats; LLVM has no portable name for them.
_PERMUTE = "llvm.x86.avx512.vpermi2var.ps.512"
_FLOATS, _INTS, _BYTES = (vector(kind, LANES) for kind in (FLOAT, INT, BYTE))
_ZEROS, _WHOLE_ZEROS, _HALF = number(0, LANES), number(0, LANES, INT), number(0.5, LANES)
_ONE = ir.Constant(INT, 1)


def available() -> bool:
    """Whether this processor can, and numba compiles for it."""
    return has("avx512f")


@functools.cache
def has(feature: str) -> bool:
    """Whether numba compiles for a processor with that feature: its settings may say otherwise
    than the processor.
    """
    chosen = numba.config.CPU_FEATURES
    features = get_host_cpu_features() if chosen is None else chosen
    return f"+{feature}" in features.split(",")


@intrinsic
def interpolate(
    typing: Any, z: Any, origin: Any, width: Any, cells: Any, values: Any, steps: Any,
    levels: Any, rates: Any, segments: Any,
) -> Any:  # fmt: skip
    """Of 16 z (float32), the rates (float32) on a curve of so many cells, and the segments
    (uint8): 0 before the curve, k + 1 in cell k, cells + 1 behind it. steps: the differences
    of neighbours in values. levels > 0 (float32) rounds to multiples of 1 / levels. To the bit
    as `curve_reference` has it.
    """

    def generate(context: Any, b: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        z, origin, width, cells, values, steps, levels, rates, segments = args
        count = b.trunc(cells, INT)
        end = _splat(b, b.sitofp(count, FLOAT))
        place = b.fsub(_load(b, z, _FLOATS), _splat(b, origin))
        place = b.fdiv(place, _splat(b, width))
        # NaN falls to the lower end.
        inside = b.select(b.fcmp_ordered(">", place, _ZEROS), place, _ZEROS)
        inside = b.select(b.fcmp_ordered("<", inside, end), inside, end)
        cell, last = b.fptosi(inside, _INTS), _splat(b, b.sub(count, _ONE))
        cell = b.select(b.icmp_signed("<", cell, last), cell, last)
        rest = b.fsub(inside, b.sitofp(cell, _FLOATS))
        rest = b.select(b.fcmp_ordered("ord", place, place), rest, place)
        rate = b.fadd(_look_up(b, values, cell), b.fmul(rest, _look_up(b, steps, cell)))
        grid = _splat(b, levels)
        rounded = _call(b, "llvm.floor.v16f32", b.fadd(b.fmul(rate, grid), _HALF))
        rounded = b.fdiv(rounded, grid)
        _store(b, b.select(b.fcmp_ordered(">", grid, _ZEROS), rounded, rate), rates)
        segment, behind = b.add(cell, _splat(b, _ONE)), _splat(b, b.add(count, _ONE))
        segment = b.select(b.fcmp_ordered("<", place, end), segment, behind)
        segment = b.select(b.fcmp_ordered(">=", place, _ZEROS), segment, _WHOLE_ZEROS)
        _store(b, b.trunc(segment, _BYTES), segments)
        return context.get_dummy_value()

    whole, real = types.int64, types.float32
    return types.void(whole, real, real, whole, whole, whole, real, whole, whole), generate


@intrinsic
def scale(
    typing: Any, x: Any, segments: Any, cells: Any, before: Any, slopes: Any, behind: Any, out: Any
) -> Any:
    """out = x * slope of 16 x (float32) by their segments: before, slopes[cell], behind."""

    def generate(context: Any, b: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        x, segments, cells, before, slopes, behind, out = args
        segment = b.zext(_load(b, segments, _BYTES), _INTS)
        slope = _look_up(b, slopes, b.sub(segment, _splat(b, _ONE)))
        first = b.icmp_signed("==", segment, _WHOLE_ZEROS)
        last = b.icmp_signed(">", segment, _splat(b, b.trunc(cells, INT)))
        slope = b.select(last, _splat(b, behind), slope)
        slope = b.select(first, _splat(b, before), slope)
        _store(b, b.fmul(_load(b, x, _FLOATS), slope), out)
        return context.get_dummy_value()

    whole, real = types.int64, types.float32
    return types.void(whole, whole, whole, real, whole, real, whole), generate


def _look_up(b: ir.IRBuilder, table: ir.Value, index: ir.Value) -> ir.Value:
    """table[index], of whose bits the lowest six count."""
    quarters = [
        _load(b, b.add(table, ir.Constant(ir.IntType(64), 4 * LANES * k)), _FLOATS)
        for k in range(ENTRIES // LANES)
    ]
    low = _call(b, _PERMUTE, quarters[0], index, quarters[1])
    high = _call(b, _PERMUTE, quarters[2], index, quarters[3])
    bit = b.and_(index, _splat(b, ir.Constant(INT, 2 * LANES)))
    return b.select(b.icmp_signed("==", bit, _WHOLE_ZEROS), low, high)


def _call(b: ir.IRBuilder, name: str, *values: ir.Value) -> ir.Value:
    """An intrinsic that gives 16 floats."""
    return call(b, name, _FLOATS, *values)


def _load(b: ir.IRBuilder, address: ir.Value, kind: ir.VectorType) -> ir.Value:
    return b.load(b.inttoptr(address, kind.as_pointer()), align=1)


def _store(b: ir.IRBuilder, value: ir.Value, address: ir.Value) -> None:
    b.store(value, b.inttoptr(address, value.type.as_pointer()), align=1)


def _splat(b: ir.IRBuilder, value: ir.Value) -> ir.Value:
    return splat(b, value, LANES)
