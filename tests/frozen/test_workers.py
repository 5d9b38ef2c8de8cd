import multiprocessing
import threading

import pytest
import torch

from spikestrap.frozen import workers


@pytest.fixture(params=[1, 2, 3])
def count(request):
    threads = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(threads)


def test_in_order_and_torch_keeps_its_threads(count):
    seen = []

    def work(part):
        seen.append(torch.get_num_threads())
        return part**2

    assert workers.each(work, range(20)) == [k**2 for k in range(20)]
    assert torch.get_num_threads() == count
    if count > 1:
        assert set(seen) == {1}


def test_threads_run_at_once(count):
    together = threading.Barrier(count)
    assert workers.each(lambda _: together.wait(10) >= 0, range(count)) == [True] * count


def test_one_part_stays_on_this_thread(count):
    assert workers.each(lambda _: threading.current_thread(), [0]) == [threading.current_thread()]


def test_errors_come_through(count):
    with pytest.raises(ZeroDivisionError):
        workers.each(lambda part: 1 / part, [1, 0, 2])


def _in_child(queue):
    queue.put(workers.each(abs, [-1, -2, -3]))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
def test_a_forked_process_has_threads_of_its_own(count):
    workers.each(abs, [-1, -2])
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=_in_child, args=(queue,))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert queue.get() == [1, 2, 3]
