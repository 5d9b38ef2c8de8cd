import sys

import numba
import numpy as np
import pytest
import torch
from numba import prange
from tests.processes import run

from spikestrap.kernel import native, threads

# Writes, at a range's start, its end; and counts its calls, by thread and by row of totals.
CODE = """
define void @count(ptr %place) {
  %calls = load double, ptr %place
  %more = fadd double %calls, 1.0
  store double %more, ptr %place
  ret void
}
define void @kernel(i64 %first, i64 %end, ptr %arguments, ptr %workspace, ptr %totals) {
  %place = getelementptr i64, ptr %arguments, i64 %first
  store i64 %end, ptr %place
  call void @count(ptr %workspace)
  call void @count(ptr %totals)
  ret void
}
"""


def share_out(blocks, arguments, *matrices):
    rows = [threads.Rows(m.ctypes.data, len(m), m.strides[0]) for m in matrices]
    threads.share_out(native.load(CODE), blocks, arguments.ctypes.data, *rows)


@pytest.mark.parametrize("blocks", [1, 2, 3, 7, 100])
@pytest.mark.parametrize(("threads_", "rows"), [(1, 1), (1, 7), (2, 2), (2, 7), (3, 5), (3, 64)])
def test_each_block_once(threads_, rows, blocks):
    ends, workspaces = np.zeros(blocks + 1, np.int64), np.zeros((threads_, 5))
    rows = min(rows, blocks)
    totals = np.zeros((rows, 3))
    share_out(blocks, ends, workspaces, totals)
    starts = np.flatnonzero(ends)
    assert starts.tolist() == [0, *ends[starts[:-1]]]
    assert ends[starts[-1]] == blocks
    assert len(starts) == rows
    assert totals[:, 0].tolist() == [1] * rows
    assert not totals[:, 1:].any()
    assert workspaces[:, 0].sum() == rows
    assert workspaces[: min(threads_, rows), 0].all()


def test_nothing_to_do():
    arguments, workspaces = np.zeros(1, np.int64), np.zeros((1, 1))
    share_out(0, arguments, workspaces, np.zeros((1, 1)))
    share_out(0, arguments, workspaces, np.zeros((0, 1)))


def test_on_more_threads_than_one():
    before = numba.get_num_threads()
    numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)
    try:
        test_each_block_once(4, 10, 100)
    finally:
        numba.set_num_threads(before)


@threads.parallel_jit
def note_threads(found):
    for k in prange(found.size):
        found[k] = numba.get_num_threads()


@pytest.mark.filterwarnings("ignore:Cannot cache")  # what asks numba for its threads
@pytest.mark.parametrize("count", [1, 2, 1000])
def test_loops_run_on_as_many_threads_as_torch_is_set_to(count):
    of_torch, of_numba = torch.get_num_threads(), numba.get_num_threads()
    torch.set_num_threads(count)
    try:
        found = np.zeros(4, np.int64)
        note_threads(found)
        assert found.tolist() == [min(count, of_numba)] * 4
        assert threads.available() == min(count, of_numba)
        assert (torch.get_num_threads(), numba.get_num_threads()) == (count, of_numba)
    finally:
        torch.set_num_threads(of_torch)


FIRST = {
    "neuron": "LIF(1.0, 0.1)(torch.rand(4, 2, 3))",
    "compiled": "torch.compile(LIF(1.0, 0.1), backend='aot_eager')(torch.rand(4, 2, 3))",
    "pooling": "pool(torch.rand(1, 1, 2, 2), (2, 2), (2, 2), (0, 0), 4)",
    "integers": "gather_rows(*map(np.ones, ((2, 3), (3, 4), (2, 4))))",
}


@pytest.mark.slow
@pytest.mark.parametrize("first", FIRST)
def test_numbas_threads_leave_torchs_number(first):
    code = f"""
import numpy as np, torch
from spikestrap.fixed.dynamics import gather_rows
from spikestrap.kernel.pooling import pool
from spikestrap.neuron import LIF
before = torch.get_num_threads()
{FIRST[first]}
print(torch.get_num_threads() - before)
"""
    done = run(sys.executable, "-c", code, OMP_NUM_THREADS="2", NUMBA_NUM_THREADS="3")
    assert done.stdout == "0\n", done.stderr


@pytest.mark.slow
def test_two_threads_of_pythons_run_loops_on_a_layer_that_knows_one():
    code = """
from concurrent.futures import ThreadPoolExecutor
import numba, numpy as np
from spikestrap.fixed.dynamics import gather_rows
spikes, rows = np.ones((64, 300), np.uint8), np.ones((300, 100), np.int32)
def count(_):
    out = np.empty((64, 100), np.int32)
    gather_rows(spikes, rows, out)
    return (out == 300).all()
with ThreadPoolExecutor(2) as pool:
    print(all(pool.map(count, range(300))), numba.threading_layer())
"""
    layer = {"NUMBA_THREADING_LAYER": "workqueue", "NUMBA_NUM_THREADS": "2"}
    done = run(sys.executable, "-c", code, OMP_NUM_THREADS="2", **layer)
    assert done.stdout == "True workqueue\n", done.stderr
