import gc
import os
import re
import threading
import time
from pathlib import Path

import pytest
import torch

import spikestrap as ss
from spikestrap.kernel import room
from spikestrap.kernel.room import LEAST, room_for

POLICY = Path("/sys/kernel/mm/transparent_hugepage/enabled")
LARGE = LEAST // 4  # float32


@pytest.fixture(autouse=True)
def store(monkeypatch):
    """One of the test's own, for a few blocks."""
    monkeypatch.setattr(room, "MOST", 4 * LEAST)
    monkeypatch.setattr(room, "_store", room._Store())
    return room._store


def advised(tensor):
    """Whether the system notes that the tensor's memory is to have large pages."""
    address, here = tensor.data_ptr() + tensor.nbytes // 2, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        bounds = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
        if bounds:
            here = int(bounds[1], 16) <= address < int(bounds[2], 16)
        elif here and line.startswith("VmFlags"):
            return "hg" in line.split()
    return False


@pytest.mark.skipif(not POLICY.exists(), reason="no large pages here")
def test_large_results_are_on_large_pages():
    large = room_for((3, LARGE + 5))
    assert advised(large)
    assert large.data_ptr() % 2**21 == 0
    assert not advised(room_for((2**10,)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_what_is_freed_is_the_next_of_that_size(dtype):
    first, other = room_for((4, LARGE), dtype), room_for((2, LARGE))
    place = first.data_ptr()
    assert (first.dtype, first.shape, first.is_contiguous()) == (dtype, (4, LARGE), True)
    del first
    assert room_for((LARGE, 4), dtype).data_ptr() == place
    del other


def test_what_is_in_use_is_no_others():
    first = room_for((LARGE,))
    rows = first.view(4, -1)[1]  # holds the storage
    rows.fill_(1.0)
    del first
    gc.collect()
    second = room_for((LARGE,))
    second.zero_()
    assert rows.sum().item() == rows.numel()


def test_it_holds_no_more_than_its_most(store):
    held = [room_for((LARGE,)) for _ in range(4)]
    assert store.held == room.MOST
    beyond = room_for((LARGE,))  # new, and not kept
    assert store.held == room.MOST
    assert beyond.data_ptr() not in {x.data_ptr() for x in held}
    del held, beyond
    whole = room_for((4 * LARGE,))  # in place of four that were free
    assert whole.numel() == 4 * LARGE
    assert store.held == room.MOST


def test_what_cannot_be_held_drives_nothing_out(store):
    kept = room_for((LARGE,))
    place = kept.data_ptr()
    del kept
    assert room_for((8 * LARGE,)).numel() == 8 * LARGE
    in_use = room_for((2 * LARGE,))
    assert room_for((3 * LARGE,)).numel() == 3 * LARGE
    assert room_for((LARGE,)).data_ptr() == place
    del in_use


def test_without_memory_what_is_unused_goes_and_torch_decides(store, monkeypatch):
    del [room_for((LARGE,))][0]
    in_use = room_for((2 * LARGE,))

    def none_left(size):
        raise MemoryError

    monkeypatch.setattr(room, "_new", none_left)
    assert room_for((3 * LARGE,)).numel() == 3 * LARGE
    assert store.held == in_use.nbytes
    monkeypatch.undo()


def test_a_signal_in_the_middle_does_not_wait(store):
    with store._lock:
        assert room_for((LARGE,)).numel() == LARGE
    assert store.held == 0


def test_what_is_freed_in_another_thread_comes_back(store):
    shared = [room_for((LARGE,))]
    place = shared[0].data_ptr()
    thread = threading.Thread(target=shared.clear)
    thread.start()
    thread.join()
    assert room_for((LARGE,)).data_ptr() == place


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_has_a_store_of_its_own(store):
    kept = room_for((LARGE,)).fill_(1.0)
    with store._lock:  # as another thread might have it
        child = os.fork()
        if not child:
            own = room_for((LARGE,)).fill_(2.0)
            held = room._store is not store and room._store.held == LEAST
            os._exit(0 if held and float(own[0]) == 2.0 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert kept.min() == 1.0


def test_threads_share_it(store):
    def use(own):
        for k in range(200):
            x = room_for((1 + k % 3, LARGE))
            x[0, 0] = x[-1, -1] = own
            time.sleep(1e-4)  # for the others
            wrong.extend([k] * int(x[0, 0] != own or x[-1, -1] != own))

    wrong = []
    threads = [threading.Thread(target=use, args=(own,)) for own in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert store.held <= room.MOST


def test_a_neuron_takes_its_results_there(store):
    lif = ss.neuron.LIF(threshold=1.0, voltage_decay=0.1)
    z = torch.rand(4, LARGE // 4, 1, requires_grad=True)
    spikes = lif(z)
    spikes.sum().backward()
    assert store.held == 2 * LEAST  # spikes, and the gradient of z
