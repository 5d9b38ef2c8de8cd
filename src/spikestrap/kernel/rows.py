"""Lists of spikes, and sums of rows: what products of spikes with weights come to.

A table is taken 16 columns at a time, packed so that these lie together: they are one register
of AVX-512, and 500 rows of them fit the innermost cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from torch import Tensor
from torch.nn import functional as F

from .building import element, loop
from .vector import BYTE, FLOAT, FLOAT_BYTES, INDEX, INT, number, vector

COLUMNS = 16
_AT_ONCE = 4  # rows, so that one addition need not wait for the other
_BITS = 64


def packed(table: Tensor) -> Tensor:
    """A table (K, O) as (P, K, 16), P parts of its columns; what is missing in the last is 0.

    >>> import torch
    >>> parts = packed(torch.ones(3, 20))
    >>> parts.shape, parts.sum((1, 2)).tolist()
    (torch.Size([2, 3, 16]), [48.0, 12.0])
    """
    rows, columns = table.shape
    parts = -(-columns // COLUMNS)
    whole = F.pad(table, (0, parts * COLUMNS - columns))
    return whole.view(rows, parts, COLUMNS).transpose(0, 1).contiguous()


def _mask(kind: ir.Type, size: int, differs: Callable[..., ir.Value]) -> Callable[..., Any]:
    """Makes a function for numba: of 64 numbers at an address, which are not 0, as bits."""

    def mask(typing: Any, address: Any) -> Any:
        def generate(context: Any, b: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
            place = b.inttoptr(args[0], ir.PointerType())
            values = b.load(place, align=size, typ=vector(kind, _BITS))
            return b.bitcast(differs(b, values, number(0, _BITS, kind)), INDEX)

        return types.int64(types.int64), generate

    made: Callable[..., Any] = intrinsic(mask)
    return made


_mask_of_bytes = _mask(BYTE, 1, lambda b, x, y: b.icmp_unsigned("!=", x, y))
_mask_of_floats = _mask(FLOAT, 4, lambda b, x, y: b.fcmp_unordered("!=", x, y))


@intrinsic
def _lowest(typing: Any, bits: Any) -> Any:
    """The place of the lowest bit that is set."""

    def generate(context: Any, b: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return b.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), generate


def _lister(mask: Any, size: int) -> Any:
    @numba.njit(error_model="numpy")
    def list_spikes(row, which, n):
        """Writes which of a row, contiguous, are not 0 to which[n:]; gives the n behind them."""
        whole = row.size // _BITS * _BITS
        for first in range(0, whole, _BITS):
            bits = mask(row.ctypes.data + size * first)
            while bits:
                which[n] = first + _lowest(bits)
                n += 1
                bits &= bits - 1
        for k in range(whole, row.size):
            if row[k] != 0:
                which[n] = k
                n += 1
        return n

    return list_spikes


list_bytes, list_floats = _lister(_mask_of_bytes, 1), _lister(_mask_of_floats, 4)


@intrinsic
def sum_rows(
    typing: Any, into: Any, start: Any, table: Any, which: Any, begin: Any, end: Any
) -> Any:
    """Writes 16 floats: those at start, and rows which[begin:end] of a packed part of a table.

    For numba's kernels: all are addresses, that of `which` one of 32-bit integers.
    """

    def generate(context: Any, b: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        kind, pointer = vector(FLOAT, COLUMNS), ir.PointerType()
        into, start, table, which = (b.inttoptr(address, pointer) for address in args[:4])
        begin, end = args[4:]

        def row(n: ir.Value) -> ir.Value:
            place = b.sext(b.load(element(b, which, n, INT), typ=INT), INDEX)
            floats = b.mul(place, ir.Constant(INDEX, COLUMNS))
            return b.load(element(b, table, floats), align=FLOAT_BYTES, typ=kind)

        first = b.load(start, align=FLOAT_BYTES, typ=kind)
        count, step = b.sub(end, begin), ir.Constant(INDEX, _AT_ONCE)
        rounds = b.sdiv(count, step)
        sums = [first, *[number(0, COLUMNS)] * (_AT_ONCE - 1)]
        with loop(b, rounds, [sums]) as (i, totals):
            n = b.add(begin, b.mul(i, step))
            rows = [row(b.add(n, ir.Constant(INDEX, k))) for k in range(_AT_ONCE)]
            totals[0] = [b.fadd(x, y) for x, y in zip(totals[0], rows, strict=True)]
        done = b.add(begin, b.mul(rounds, step))
        with loop(b, b.sub(end, done), [totals[0][:1]]) as (i, last):
            last[0] = [b.fadd(last[0][0], row(b.add(done, i)))]
        a, (_, c, d, e) = last[0][0], totals[0]
        b.store(b.fadd(b.fadd(a, c), b.fadd(d, e)), into, align=FLOAT_BYTES)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), generate
