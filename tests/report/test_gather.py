import math

import numpy as np
import pytest
import torch

import spikestrap as ss
from spikestrap.report.gather import gather, timeline
from spikestrap.report.records import Records, Result, read_records
from spikestrap.train import Epoch, load_run


def test_what_is_shown_is_what_the_run_holds(trained, report):
    run = load_run(trained)
    assert (report.name, report.time_steps, report.seed) == ("digits-mlp", 4, 0)
    assert report.precision == "float"
    assert report.parameters == run.config["parameters"]
    assert [layer.unit for layer in report.layers] == [f"blocks.{k}.unit" for k in (1, 2, 3)]
    assert [layer.block for layer in report.layers] == ["Input", "Dense", "Dense"]
    for number, layer in enumerate(report.layers):
        sampler = run.net.blocks[number + 1].unit.sampler
        assert layer.neuron == "CUBA"
        assert np.allclose(layer.curve.values, sampler.values[0])
        assert layer.curve.inputs[0] == pytest.approx(float(sampler.origin))
        assert layer.samples.counts.sum() == sampler.statistics.pairs[0, 0].sum()
        assert 0 <= layer.samples.rates.min() <= layer.samples.rates.max() <= 1
        # The curve of the only fit is the one that the network still has.
        (fitted,) = layer.history
        assert fitted.epoch == 0
        assert np.allclose(fitted.values, layer.curve.values, atol=1e-4)
        assert layer.density.neurons == (64, 256, 256)[number]


def test_without_test_images(trained):
    report = gather(trained, evaluate=False)
    assert report.measured is None
    assert all(layer.density is None for layer in report.layers)


def test_the_timeline_of_a_training(trained, report):
    records = read_records(trained)
    line = report.timeline
    assert line.exact
    assert [span.mode for span in line.spans] == ["sample", "fit", "ann", "ann", "evaluation"]
    for mode, seconds in records.result.seconds.items():
        if mode != "total":
            spent = sum(span.end - span.start for span in line.spans if span.mode == mode)
            assert spent == pytest.approx(seconds)
    assert all(a.end <= b.start + 1e-9 for a, b in zip(line.spans, line.spans[1:], strict=False))
    assert line.ends == pytest.approx(np.cumsum([epoch.seconds for epoch in records.epochs]))


def test_a_timeline_that_was_not_recorded_is_worked_out_from_the_steps():
    """Worked by hand: 2 s for 4 steps of sampling, 6 s for 12 as an ANN."""
    epochs = [
        Epoch(0, 1.0, 0.1, {"sample": 4, "ann": 4}, 5.0),
        Epoch(1, 1.0, 0.1, {"ann": 8}, 6.0, 90.0, 90.0),
    ]
    result = Result(90.0, 90.0, 0.1, {"sample": 2.0, "ann": 6.0, "total": 11.0})
    line = timeline(Records(result, epochs, 1, []))
    assert not line.exact
    assert [(span.mode, span.start, span.end) for span in line.spans] == [
        ("sample", 0.0, 2.0),
        ("ann", 2.0, 4.0),
        ("ann", 5.0, 9.0),
        ("evaluation", 9.0, 11.0),
    ]
    assert line.ends == [5.0, 11.0]


@pytest.mark.parametrize(("name", "value"), [("origin", math.inf), ("width", 0.0)])
def test_a_curve_that_is_none(run, name, value):
    state = torch.load(run / "best.pt", weights_only=True)
    state[f"blocks.2.unit.sampler.{name}"].fill_(value)
    torch.save(state, run / "best.pt")
    with pytest.raises(ss.SpikestrapError, match=r"best.pt: blocks.2.unit: expected a curve on"):
        gather(run)


def test_data_that_are_not_there(trained, tmp_path):
    with pytest.raises(ss.SpikestrapError, match="--data: expected a folder"):
        gather(trained, data=tmp_path / "none")
