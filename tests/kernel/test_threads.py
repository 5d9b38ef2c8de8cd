import numba
import numpy as np
import pytest

from spikestrap.kernel import native, threads

# Writes, at a range's start, its end and the thread's mark; and counts its calls.
CODE = """
define void @kernel(i64 %first, i64 %end, ptr %arguments, ptr %workspace) {
  %place = getelementptr i64, ptr %arguments, i64 %first
  store i64 %end, ptr %place
  %calls = load double, ptr %workspace
  %more = fadd double %calls, 1.0
  store double %more, ptr %workspace
  ret void
}
"""


@pytest.mark.parametrize("blocks", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("rows", [1, 2, 3])
def test_each_block_once(rows, blocks):
    ends, workspaces = np.zeros(blocks, np.int64), np.zeros((rows, 5))
    threads.share_out(native.load(CODE), blocks, ends, workspaces)
    starts = np.flatnonzero(ends)
    assert starts.tolist() == [0, *ends[starts[:-1]]]
    assert ends[starts[-1]] == blocks
    calls = min(rows, blocks)
    assert len(starts) == calls
    assert workspaces[:, 0].tolist() == [1] * calls + [0] * (rows - calls)


def test_nothing_to_do():
    workspaces = np.zeros((1, 1))
    threads.share_out(native.load(CODE), 0, np.zeros(1, np.int64), workspaces)


def test_on_more_threads_than_one():
    before = numba.get_num_threads()
    numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)
    try:
        test_each_block_once(4, 10)
    finally:
        numba.set_num_threads(before)
