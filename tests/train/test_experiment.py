"""Evaluation of files; trainings and runs are tested from the command line."""

import nir
import numpy as np
import pytest

import spikestrap as ss
from spikestrap import block
from spikestrap.train import digits, evaluate_file

LIF = {"threshold": 0.5, "voltage_decay": 0.1}


def convolution(steps):
    return ss.Network(
        block.lif.Conv({**LIF, "norm": "batch"}, 1, 4, 3),
        block.AvgPool(2),
        block.Flatten(),
        block.lif.Affine(None, 36, 10),
        time_steps=steps,
    )


def test_a_nir_file_is_run_as_an_snn_on_the_images_that_fit_it(tmp_path):
    net, test = convolution(4).eval(), digits(0).test
    ss.save(net, tmp_path / "x.nir", input_shape=(1, 8, 8))
    for steps in (None, 7):
        result = evaluate_file(tmp_path / "x.nir", time_steps=steps)
        net.time_steps = steps or 4
        logits = net(test.x)
        assert result["snn_accuracy"] == 100 * (logits.argmax(1) == test.y).double().mean().item()
        assert (result["data"], result["samples"]) == ("digits", len(test))
        assert result["time_steps"] == net.time_steps
        assert 0 < result["event_rate"] < 1


def test_a_file_of_another_tool_needs_the_number_of_steps(tmp_path):
    lif = nir.LIF(*(np.full(10, p) for p in (1e-3, 10.0, 0.0, 0.1)))
    nir.write(tmp_path / "x.nir", nir.NIRGraph.from_list(nir.Linear(np.ones((10, 64))), lif))
    with pytest.raises(ss.SpikestrapError, match=r"x.nir: .* for how many steps: --time-steps T"):
        evaluate_file(tmp_path / "x.nir")
    assert evaluate_file(tmp_path / "x.nir", time_steps=3)["event_rate"] > 0


@pytest.mark.parametrize("ending", ["net", "nir"])
def test_inputs_of_no_known_shape_are_refused(tmp_path, ending):
    file = tmp_path / f"x.{ending}"
    precision = "loihi" if ending == "net" else "float"
    net = ss.Network(block.cuba.Input({"threshold": 1.0}), time_steps=2, precision=precision)
    ss.save(net, file, input_shape=(8, 8, 1))
    message = rf"x.{ending}: takes inputs of shape \(8, 8, 1\); expected \(1, 8, 8\) .digits., "
    with pytest.raises(ss.SpikestrapError, match=message):
        evaluate_file(file)


def test_a_graph_that_is_no_chain_is_refused_with_the_files_name(tmp_path):
    graph = nir.NIRGraph.from_list(nir.Threshold(np.ones(64)))
    nir.write(tmp_path / "x.nir", graph)
    with pytest.raises(ss.SpikestrapError, match=r"x.nir: NIR: node .* is a Threshold"):
        evaluate_file(tmp_path / "x.nir", time_steps=3)
