import numba
import numpy as np
import pytest

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
