import threading

import numba
import pytest

from spikestrap.kernel import threads


@pytest.fixture(params=[1, 2, 3])
def count(request, monkeypatch):
    monkeypatch.setattr(numba, "get_num_threads", lambda: request.param)
    threads._pool.cache_clear()
    yield request.param
    threads._pool.cache_clear()


@pytest.mark.parametrize("blocks", [1, 2, 3, 7, 100])
def test_each_block_once(count, blocks):
    done, lock = [], threading.Lock()

    def work(first, end):
        with lock:
            done.append((first, end))

    threads.share_out(work, blocks)
    assert sorted(i for first, end in done for i in range(first, end)) == list(range(blocks))
    assert len(done) == min(count, blocks)


def test_nothing_to_do(count):
    threads.share_out(lambda first, end: None, 0)


def test_errors_come_through(monkeypatch):
    monkeypatch.setattr(numba, "get_num_threads", lambda: 2)

    def work(first, end):
        if first:
            raise KeyError

    with pytest.raises(KeyError):
        threads.share_out(work, 2)
