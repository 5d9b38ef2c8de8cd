import re
import sys

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.nmnist import TIME_MARK, recording, write, write_data

from spikestrap.errors import SpikestrapError
from spikestrap.train.events import SHAPE, read_part

# (x, y, polarity, microseconds)
EVENTS = [
    (0, 0, 0, 1000),
    (33, 0, 1, 1000),
    (33, 0, 1, 1099),
    (0, 33, 0, 1100),
    (5, 7, 1, 1250),
    (5, 7, 1, 1251),
    (5, 7, 0, 1252),
    (12, 30, 0, 1399),
    (1, 1, 1, 1400),
]
# By hand: 400 microseconds in 4 windows of 100, (step, polarity, y, x): count; the last is in none.
IN_4 = {
    (0, 0, 0, 0): 1,
    (0, 1, 0, 33): 2,
    (1, 0, 33, 0): 1,
    (2, 1, 7, 5): 2,
    (2, 0, 7, 5): 1,
    (3, 0, 30, 12): 1,
}
# In 3 windows of 133: to 1133, 1266 and 1399, which the last two do not reach.
IN_3 = {(0, 0, 0, 0): 1, (0, 1, 0, 33): 2, (0, 0, 33, 0): 1, (1, 1, 7, 5): 2, (1, 0, 7, 5): 1}


def counts(frames):
    return {tuple(map(int, place)): int(frames[tuple(place)]) for place in np.argwhere(frames)}


@pytest.mark.parametrize(("steps", "expected"), [(4, IN_4), (3, IN_3)])
def test_frames_hold_the_events_of_each_window(tmp_path, steps, expected):
    write(tmp_path, "Test", 7, 1, EVENTS)
    part = read_part(tmp_path, "test", steps)
    assert part.frames.shape == (1, steps, *SHAPE)
    assert part.frames.dtype == np.uint8
    assert counts(part.frames[0]) == expected
    assert part.labels.tolist() == [7]


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([(3, 5, 1, 700)], {(0, 1, 5, 3): 1}),
        ([(3, 5, 1, 0), (3, 5, 1, 0)], {(0, 1, 5, 3): 2}),
        (
            [(3, 5, 1, 7), (4, 5, 0, 8), (3, 5, 1, 10)],
            {(0, 1, 5, 3): 1, (1, 0, 5, 4): 1, (3, 1, 5, 3): 1},
        ),
        ([(3, 5, 1, 0)] * 300, {(0, 1, 5, 3): 255}),
        # Over 4 microseconds the windows are tonic's, without the last event.
        ([(3, 5, 1, 7), (4, 5, 0, 8), (3, 5, 1, 11)], {(0, 1, 5, 3): 1, (1, 0, 5, 4): 1}),
    ],
)
def test_a_recording_of_fewer_microseconds_than_steps_is_not_empty(tmp_path, events, expected):
    write(tmp_path, "Test", 7, 1, events)
    assert counts(read_part(tmp_path, "test", 4).frames[0]) == expected


def test_the_order_in_the_file_does_not_matter(tmp_path):
    write(tmp_path, "Train", 0, 1, EVENTS[::-1])
    assert counts(read_part(tmp_path, "train", 4).frames[0]) == IN_4


def test_a_mark_of_time_moves_what_follows_on(tmp_path):
    """By 2**13 microseconds: an event at 8 after it is at 8200, the last one at 16400."""
    mark = (0, TIME_MARK, 0, 0)
    events = [(1, 2, 0, 0), (3, 4, 1, 0), mark, (5, 6, 0, 8), mark, (0, 0, 0, 16)]
    write(tmp_path, "Train", 3, 1, events)
    found = counts(read_part(tmp_path, "train", 2).frames[0])
    assert found == {(0, 0, 2, 1): 1, (0, 1, 4, 3): 1, (1, 0, 6, 5): 1}


def test_a_count_stops_at_255(tmp_path):
    write(tmp_path, "Train", 3, 1, [*[(1, 2, 0, 5)] * 300, (0, 0, 0, 9)])
    assert counts(read_part(tmp_path, "train", 1).frames[0]) == {(0, 0, 2, 1): 255}


def test_labels_are_the_folders_and_parts_are_apart(tmp_path):
    for digit in (4, 0, 9):
        write(tmp_path, "Train", digit, digit, EVENTS)
    write(tmp_path, "Test", 2, 1, EVENTS)
    assert read_part(tmp_path, "train", 2).labels.tolist() == [0, 4, 9]
    assert read_part(tmp_path, "test", 2).labels.tolist() == [2]


def test_other_files_are_no_recordings(tmp_path):
    write_data(tmp_path, each=1)
    (tmp_path / "NMNIST/Train/0/notes.txt").write_text("none")
    assert len(read_part(tmp_path, "train", 1).labels) == 10


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "events of 5 bytes each, got 0 bytes"),
        (recording(EVENTS)[:-1], "events of 5 bytes each, got 44 bytes"),
        (recording(EVENTS[:1]) * 2**15, "1 to 32767 events of 5 bytes each, got 163840 bytes"),
        (recording([(34, 0, 0, 0)]), r"on 34 x 34 pixels, got them up to \(34, 0\)"),
        (recording([(0, 34, 0, 0)]), r"on 34 x 34 pixels, got them up to \(0, 34\)"),
        (recording([(0, TIME_MARK, 0, 0)]), "got none but marks of time"),
    ],
)
def test_a_damaged_recording_is_named(tmp_path, content, message):
    write(tmp_path, "Train", 1, 1, EVENTS)
    path = write(tmp_path, "Train", 1, 2, EVENTS)
    path.write_bytes(content)
    with pytest.raises(SpikestrapError, match=f"^{re.escape(str(path))}: expected .*{message}$"):
        read_part(tmp_path, "train", 2)


@given(content=st.binary(max_size=60), steps=st.integers(1, 5))
@example(content=bytes(5), steps=1)
def test_whatever_is_in_a_file_it_is_read_or_refused(tmp_path_factory, content, steps):
    folder = tmp_path_factory.mktemp("hostile")
    write(folder, "Train", 1, 1, []).write_bytes(content)
    try:
        frames, _ = read_part(folder, "train", steps)
    except SpikestrapError:
        return
    assert frames.sum() <= len(content) / 5  # an event takes five bytes


def test_a_recording_that_cannot_be_read_is_named(tmp_path):
    path = write(tmp_path, "Train", 1, 1, EVENTS)
    path.unlink()
    path.symlink_to("nowhere")
    with pytest.raises(SpikestrapError, match=f"^{re.escape(str(path))}: cannot be read: No such"):
        read_part(tmp_path, "train", 2)


def test_a_missing_part_is_named(tmp_path):
    with pytest.raises(SpikestrapError, match=r"found no NMNIST/Train: unpack train\.zip"):
        read_part(tmp_path, "train", 2)


def test_a_part_without_recordings_is_refused_and_nothing_downloaded(tmp_path):
    (tmp_path / "NMNIST/Train").mkdir(parents=True)
    with pytest.raises(SpikestrapError, match="expected 1 to 60000 recordings, got 0"):
        read_part(tmp_path, "train", 2)


@pytest.mark.parametrize("digit", ["10", "1/1", "."])
def test_a_recording_outside_the_ten_folders_is_refused(tmp_path, digit):
    write(tmp_path, "Train", digit, 1, EVENTS)
    with pytest.raises(SpikestrapError, match="folder"):
        read_part(tmp_path, "train", 2)


def test_frames_that_no_memory_holds_are_refused(tmp_path):
    write(tmp_path, "Train", 1, 1, EVENTS)
    with pytest.raises(SpikestrapError, match="1 recordings in 10000000 frames are 22 GiB, more"):
        read_part(tmp_path, "train", 10_000_000)


def test_without_tonic_it_says_what_to_install(tmp_path, monkeypatch):
    write(tmp_path, "Train", 1, 1, EVENTS)
    monkeypatch.setitem(sys.modules, "tonic.datasets", None)
    with pytest.raises(SpikestrapError, match=r"N-MNIST: needs tonic.*'spikestrap\[events\]'"):
        read_part(tmp_path, "train", 2)
