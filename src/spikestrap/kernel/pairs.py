"""Windows of 2 x 2 in two rows of an image, up to 16 side by side: their means, their copies.

Rows of images are often shorter than a register: a mask says how many windows there are. The
functions are for numba's kernels; they take addresses of float32 rows. numba keeps compiled loops
until their own file changes: what is edited here takes effect once `pooling` is touched.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .registers import has
from .vector import FLOAT, FLOAT_BYTES, INDEX, INT, call, number, splat, vector

WINDOWS = 16
_ALIGNED = ir.Constant(INT, FLOAT_BYTES)
_EVEN, _ODD = ([2 * k + odd for k in range(WINDOWS)] for odd in (0, 1))
_TWICE = [k // 2 for k in range(2 * WINDOWS)]


def available() -> bool:
    """Whether a masked vector is one instruction; without, LLVM makes a branch for each float."""
    return has("avx")


@intrinsic
def average(typing: Any, upper: Any, lower: Any, out: Any, count: Any, divisor: Any) -> Any:
    """out[k]: the sum of columns 2 k and 2 k + 1 of both rows, in torch's order, over the divisor
    (float32), for k < count <= 16.
    """

    def generate(context: Any, b: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        upper, lower, out, count, divisor = args
        columns = b.mul(count, ir.Constant(INDEX, 2))
        left, right, left_below, right_below = (
            _shuffled(b, row, places)
            for row in (_load_first(b, address, columns, 2 * WINDOWS) for address in (upper, lower))
            for places in (_EVEN, _ODD)
        )
        total = b.fadd(b.fadd(b.fadd(left, right), left_below), right_below)
        _store_first(b, b.fdiv(total, splat(b, divisor, WINDOWS)), out, count)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4, types.float32), generate


@intrinsic
def spread(typing: Any, x: Any, upper: Any, lower: Any, count: Any, divisor: Any) -> Any:
    """Columns 2 k and 2 k + 1 of both rows: x[k] over the divisor, for k < count <= 16."""

    def generate(context: Any, b: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        x, upper, lower, count, divisor = args
        value = b.fdiv(_load_first(b, x, count, WINDOWS), splat(b, divisor, WINDOWS))
        columns = b.mul(count, ir.Constant(INDEX, 2))
        for address in (upper, lower):
            _store_first(b, _shuffled(b, value, _TWICE), address, columns)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4, types.float32), generate


def _shuffled(b: ir.IRBuilder, x: ir.Value, places: list[int]) -> ir.Value:
    return b.shuffle_vector(x, x, ir.Constant(vector(INT, len(places)), places))


def _mask(b: ir.IRBuilder, count: ir.Value, lanes: int) -> ir.Value:
    """The first `count` lanes."""
    place = ir.Constant(vector(INT, lanes), list(range(lanes)))
    return b.icmp_signed("<", place, splat(b, b.trunc(count, INT), lanes))


def _load_first(b: ir.IRBuilder, address: ir.Value, count: ir.Value, lanes: int) -> ir.Value:
    """So many floats, then zeros."""
    name, kind = f"llvm.masked.load.v{lanes}f32.p0", vector(FLOAT, lanes)
    place = b.inttoptr(address, ir.PointerType())
    return call(b, name, kind, place, _ALIGNED, _mask(b, count, lanes), number(0, lanes))


def _store_first(b: ir.IRBuilder, value: ir.Value, address: ir.Value, count: ir.Value) -> None:
    """The first `count` of them."""
    lanes = value.type.count
    place = b.inttoptr(address, ir.PointerType())
    name = f"llvm.masked.store.v{lanes}f32.p0"
    call(b, name, ir.VoidType(), value, place, _ALIGNED, _mask(b, count, lanes))
