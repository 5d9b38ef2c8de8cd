"""Loops and addresses in LLVM code under construction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

from llvmlite import ir

from .vector import FLOAT, INDEX


def element(
    b: ir.IRBuilder,
    array: ir.Value,
    index: ir.Value | int,
    kind: ir.Type = FLOAT,
    inbounds: bool = True,
) -> ir.Value:
    """The address of an element of an array; inbounds: LLVM may rely on it that there is one."""
    if isinstance(index, int):
        index = ir.Constant(INDEX, index)
    return b.gep(array, [index], inbounds=inbounds, source_etype=kind)


@contextmanager
def loop(
    b: ir.IRBuilder, count: ir.Value, carried: Sequence[Sequence[ir.Value]] = ()
) -> Iterator[tuple[ir.Value, list[list[ir.Value]]]]:
    """For an index from 0 up to count; the builder is behind the loop afterwards.

    Also gives what values that are `carried` along are at that index. The body replaces them in
    the list; when the loop has ended, the list has what they are after it.
    """
    before = b.block
    test, body, after = (b.append_basic_block(name) for name in ("test", "body", "after"))
    b.branch(test)
    b.position_at_end(test)
    i = b.phi(INDEX)
    phis = [[b.phi(value.type) for value in group] for group in carried]
    b.cbranch(b.icmp_signed("<", i, count), body, after)
    b.position_at_end(body)
    values = list(phis)
    yield i, values
    following = [b.add(i, ir.Constant(INDEX, 1), flags=("nsw",)), *chain(*values)]
    starts = [ir.Constant(INDEX, 0), *chain(*carried)]
    for phi, start, value in zip([i, *chain(*phis)], starts, following, strict=True):
        phi.add_incoming(start, before)
        phi.add_incoming(value, b.block)
    b.branch(test)
    b.position_at_end(after)
    values[:] = phis
