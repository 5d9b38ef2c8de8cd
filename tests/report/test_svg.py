import itertools
import math
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikestrap.report import svg

numbers = st.floats(-1e6, 1e6)


@given(numbers, st.floats(1e-3, 1e6), st.integers(3, 12))
def test_ticks_lie_within_are_few_and_evenly_spaced(low, span, most):
    values = svg.ticks(low, low + span, most)
    assert 1 <= len(values) <= most + 1
    slack = 1e-6 * (abs(low) + span)
    assert all(low - slack <= value <= low + span + slack for value in values)
    steps = np.diff(values)
    assert np.allclose(steps, steps[:1], rtol=1e-3)


@given(st.lists(numbers, min_size=1, max_size=5), st.floats(0, 100))
def test_a_range_holds_its_values(values, least):
    low, high = svg.around(values, least)
    slack = 1e-6 * max(map(abs, [low, high, 1]))
    assert low - slack <= min(values)
    assert high + slack >= max(values)
    assert high - low >= least - slack
    assert high > low


@given(st.lists(st.floats(0, 200), max_size=8), st.floats(1, 20))
def test_labels_are_moved_apart_and_keep_their_order(places, gap):
    moved = svg.apart(places, gap)
    assert len(moved) == len(places)
    ordered = [moved[i] for i in sorted(range(len(places)), key=places.__getitem__)]
    assert all(b - a >= gap - 1e-6 for a, b in itertools.pairwise(ordered))
    if places:
        assert math.isclose(sum(moved), sum(places), rel_tol=1e-6, abs_tol=1e-6)


def test_labels_that_do_not_meet_stay():
    assert svg.apart([0.0, 20.0, 90.0], 14.0) == [0.0, 20.0, 90.0]


def test_text_is_escaped():
    drawn = svg.document(10, 'a "<b>"', [svg.text(1, 2, "<script>&")])
    tree = ElementTree.fromstring(drawn)
    assert tree.get("aria-label") == 'a "<b>"'
    assert tree[0].text == "<script>&"


def test_cells_of_shade_0_are_left_out_and_levels_follow_the_shade():
    shade = np.array([[0.0, 0.01], [0.5, 1.0]])
    drawn = svg.cells(shade, lambda column, row: (column, row, 1, 1), "cell")
    paths = ElementTree.fromstring(f"<svg>{drawn}</svg>")
    assert {path.get("class"): path.get("d") for path in paths} == {
        "cell level1": "M0 1h1v1h-1z",
        "cell level4": "M1 0h1v1h-1z",
        "cell level8": "M1 1h1v1h-1z",
    }


@pytest.mark.parametrize(("count", "most", "kept"), [(3, 5, 3), (1000, 5, 5)])
def test_thinning_keeps_both_ends(count, most, kept):
    found = svg.thinned(range(count), most)
    assert len(found) == kept
    assert (found[0], found[-1]) == (0, count - 1)
