import dataclasses
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from spikestrap.operations import Cost
from spikestrap.report import figures
from spikestrap.report.example import example
from spikestrap.report.gather import Span, Timeline
from spikestrap.report.measure import Sweep
from spikestrap.report.svg import WIDTH
from spikestrap.train import Epoch

EPOCHS = [Epoch(k, 1.0, 0.1, {"ann": 9}, 100.0, 90.0 + k, 91.0 + k) for k in range(3)]
TIMELINE = Timeline(
    [Span("sample", 0, 30), Span("fit", 30, 30.001), Span("ann", 30.001, 300)],
    True,
    [100.0, 200.0, 300.0],
)


def parsed(drawn):
    """The figure, checked for what every figure must be."""
    tree = ElementTree.fromstring(drawn)
    assert tree.get("role") == "img"
    assert len(tree.get("aria-label")) > 20
    assert "nan" not in drawn
    assert "inf" not in re.sub(r">[^<]*<|aria-label=\"[^\"]*\"", "", drawn)
    return tree


def texts(tree):
    return [element.text for element in tree.iter() if element.tag.endswith("text")]


def of_class(tree, kind):
    return [e for e in tree.iter() if kind in e.get("class", "").split()]


def test_training():
    tree = parsed(figures.training(EPOCHS, 2, TIMELINE))
    told = texts(tree)
    assert {"SNN 92.00 %", "ANN 93.00 %", "kept: epoch 3", "training time (min)"} <= set(told)
    assert "SNN from 90.0 to 92.0 %" in tree.get("aria-label")
    bands = {e.get("class").split()[1]: e.get("d") for e in of_class(tree, "band")}
    assert set(bands) == {"sample", "fit", "ann"}
    # A tenth of the width is the sampling's; a fit of a millisecond is still seen.
    width = {mode: float(re.search(r"h([\d.]+)v", path)[1]) for mode, path in bands.items()}
    assert width["sample"] == pytest.approx(0.1 * (WIDTH - 104 - 46), abs=0.01)
    assert width["fit"] == pytest.approx(0.6)


def test_training_without_a_validation():
    epochs = [dataclasses.replace(e, snn_accuracy=None, ann_accuracy=None) for e in EPOCHS]
    assert "none measured" in parsed(figures.training(epochs, -1, TIMELINE)).get("aria-label")


def test_a_very_long_training_stays_small():
    count = 20_000
    epochs = [Epoch(k, 1.0, 0.1, {"ann": 9}, 1.0, 90.0, 91.0) for k in range(count)]
    spans = [
        s for k in range(count) for s in (Span("fit", k, k + 0.5), Span("ann", k + 0.5, k + 1))
    ]
    drawn = figures.training(epochs, 2, Timeline(spans, True, [k + 1.0 for k in range(count)]))
    assert len(drawn) < 300_000
    parsed(drawn)


def test_transfer_curve(report):
    layer = report.layers[1]
    tree = parsed(figures.transfer_curve(layer, 4))
    assert "4 time steps" in tree.get("aria-label")
    assert of_class(tree, "ann")
    assert of_class(tree, "sample")
    assert of_class(tree, "cell")
    bare = dataclasses.replace(layer, density=None, samples=None, curve=None)
    tree = parsed(figures.transfer_curve(bare, 4))
    assert "no curve was fitted" in tree.get("aria-label")
    assert "at 1 time step;" in parsed(figures.transfer_curve(layer, 1)).get("aria-label")


def test_the_strongest_cell_is_the_most_frequent_one(report):
    layer = report.layers[1]
    counts = np.zeros((48, 5), int)
    counts[10, 2], counts[11, 2] = 1000, 1
    density = dataclasses.replace(layer.density, counts=counts)
    tree = parsed(figures.transfer_curve(dataclasses.replace(layer, density=density), 4))
    cells = of_class(tree, "cell")
    assert [cell.get("class").split()[-1] for cell in cells] == ["level1", "level8"]


def test_curve_history(report):
    layer = report.layers[0]
    (first,) = layer.history
    tree = parsed(figures.curve_history(layer))
    assert "epoch 1" in texts(tree)
    assert "its curve as fitted in epoch 1; the rate at the last knot is" in tree.get("aria-label")
    many = [dataclasses.replace(first, epoch=k) for k in range(90)]
    tree = parsed(figures.curve_history(dataclasses.replace(layer, history=many)))
    assert "epoch 1, faint, to 90, bold" in texts(tree)
    assert "in 90 epochs from 1 to 90; the rate at" in tree.get("aria-label")
    assert len(of_class(tree, "line")) < 40


def test_event_rates(report):
    tree = parsed(figures.event_rates(report.layers))
    for number, layer in enumerate(report.layers):
        rate = f"{layer.history[-1].event_rate:.3f}"
        assert f"{number + 1} {layer.block} {rate}" in texts(tree)


@pytest.mark.parametrize("trained", [1, 4])
def test_over_time_steps(trained):
    sweep = Sweep([50.0 + 5 * t for t in range(2 * trained)], 90.0, 100)
    tree = parsed(figures.over_time_steps(sweep, trained))
    assert f"SNN {sweep.accuracy[trained - 1]:.1f} %" in texts(tree)
    assert f"trained at T = {trained}" in texts(tree)
    assert len(of_class(tree, "dot")) == 2 * trained
    told = re.findall(r"([\d.]+) % after (\d+) time steps?\b", tree.get("aria-label"))
    shown = sorted({1, trained, 2 * trained})
    assert told == [(f"{sweep.accuracy[t - 1]:.1f}", str(t)) for t in shown]
    without = figures.over_time_steps(dataclasses.replace(sweep, ann=None), trained)
    assert "ANN" not in "".join(texts(parsed(without)))


@pytest.mark.parametrize(
    ("accuracy", "ann", "trained"),
    [
        ([60.0, 80.0, 90.0, 94.0, 96.0, 97.0, 97.2, 97.5], 97.9, 8),  # as many frames as there are
        ([90.0], 92.0, 1),
        ([50.0, 90.0], 91.0, 1),
        ([98.1, 97.0], 98.2, 1),
        ([97.9, 98.1], 98.0, 1),
        ([10.0, 20.0], 96.8, 2),
    ],
)
def test_accuracies_over_time_steps_are_told_within_the_figure_and_off_the_lines(
    accuracy, ann, trained
):
    tree = parsed(figures.over_time_steps(Sweep(accuracy, ann, 100), trained))
    x, y = zip(
        *((float(dot.get("cx")), float(dot.get("cy"))) for dot in of_class(tree, "dot")),
        strict=True,
    )
    (dashed,) = of_class(tree, "dashed")
    level = float(re.search(r" ([\d.]+)L", dashed.get("d"))[1])
    for label in of_class(tree, "label"):
        start, baseline = float(label.get("x")), float(label.get("y"))
        wide = 7 * len(label.text)
        left = start - wide if label.get("text-anchor") == "end" else start
        assert 0 <= left <= WIDTH - wide
        curve = np.interp(np.linspace(left, left + wide, 50), x, y)
        for line in (*curve, level):
            assert not baseline - 9 < line < baseline + 1


def test_confusion():
    tree = parsed(figures.confusion(np.array([[5, 0, 3], [0, 9, 1], [0, 0, 0]])))
    alt = tree.get("aria-label")
    assert "4 errors in 18 images" in alt
    assert "3 times, a 0 is taken for a 2" in alt
    assert sorted(e.text for e in of_class(tree, "count")) == ["1", "3", "5", "9"]
    parsed(figures.confusion(np.diag([4, 4])))


def test_example(report):
    for shown in report.measured.examples:
        tree = parsed(example(shown, report.layers))
        assert f"Test image {shown.index}: a {shown.true}, " in tree.get("aria-label")
        assert {f"{shown.true} (right)", f"{shown.rival} (rival)"} <= set(texts(tree))
        assert "64 of 256" in texts(tree)
        spikes = sum(e.get("d").count("M") for e in of_class(tree, "spike"))
        assert spikes == sum(int(raster.spikes.sum()) for raster in shown.rasters)


def test_operations():
    """1000 additions are 0.9 nJ, 100 updates and 200 MACs 1.38 nJ, 500 MACs 2.3 nJ."""
    cost = Cost(4, 50.0, 1000.0, 100.0, 200.0, 500.0)
    alt = parsed(figures.operations(cost)).get("aria-label")
    assert "SNN 2.3 nJ, ANN 2.3 nJ" in alt
