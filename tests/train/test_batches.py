from itertools import chain

import pytest
import torch

from spikestrap.errors import SpikestrapError
from spikestrap.train.augment import RandomWarp
from spikestrap.train.batches import Batches
from spikestrap.train.data import Arrays

ARRAYS = Arrays(torch.rand(10, 1, 8, 8), torch.arange(10))


def labels(batches):
    return [y.tolist() for _, y in batches]


def test_the_order_is_new_at_each_pass_and_the_seed_decides():
    batches, same = Batches(ARRAYS, 5, None, seed=1), Batches(ARRAYS, 5, None, seed=1)
    first, second = labels(batches), labels(batches)
    assert first != second
    assert sorted(chain(*first)) == list(range(10))
    assert [labels(same), labels(same)] == [first, second]
    assert labels(Batches(ARRAYS, 5, None, seed=2)) != first


def test_frames_of_events_come_time_first():
    frames = torch.arange(30, dtype=torch.uint8).view(10, 3, 1, 1, 1).expand(10, 3, 2, 4, 4)
    for x, y in Batches(Arrays(frames, torch.arange(10)), 4, None, seed=0):
        assert (x.shape, x.dtype) == ((3, 4, 2, 4, 4), torch.float32)
        assert x[2, :, 0, 0, 0].tolist() == (3 * y + 2).tolist()


def test_images_stay_with_their_labels():
    for x, y in Batches(ARRAYS, 4, None, seed=0):
        assert x.equal(ARRAYS.x[y])


def test_only_full_batches():
    assert [len(y) for _, y in Batches(ARRAYS, 4, None, seed=0)] == [4, 4]
    assert [len(y) for _, y in Batches(ARRAYS, 64, None, seed=0)] == [10]


def test_augments():
    (x, y), *_ = Batches(ARRAYS, 10, RandomWarp(shift=2), seed=0)
    assert x.shape == (10, 1, 8, 8)
    assert not x.equal(ARRAYS.x[y])


def test_each_process_has_its_share_of_what_one_would_see(monkeypatch):
    augment = RandomWarp(degrees=20, shift=2)
    whole = list(Batches(ARRAYS, 5, augment, seed=1))
    monkeypatch.setattr("spikestrap.processes.count", lambda: 2)
    shares = []
    for rank in range(2):
        monkeypatch.setattr("spikestrap.processes.rank", lambda rank=rank: rank)
        shares.append(list(Batches(ARRAYS, 5, augment, seed=1)))
    for (x, y), *parts in zip(whole, *shares, strict=True):
        for rank, (part_x, part_y) in enumerate(parts):
            assert part_y.equal(y[rank::2])
            torch.testing.assert_close(part_x, x[rank::2])
    with pytest.raises(SpikestrapError, match="an image or more for each of the 2 processes"):
        next(iter(Batches(ARRAYS, 1, None, seed=1)))
