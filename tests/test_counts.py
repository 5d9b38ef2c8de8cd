import json
from dataclasses import asdict
from fractions import Fraction

import numpy as np
import pytest
import torch

import spikestrap as ss
from spikestrap import block
from spikestrap.ann_sampler import AnnSampler
from spikestrap.counts import finite_number, whole_number, whole_or_none
from spikestrap.train.options import Options

NEURON = {"threshold": 1.0}


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_a_whole_number_within_both_ends(value):
    for found in (whole_number("n", value, 1, 3), whole_or_none("n", value, 3)):
        assert (found, type(found)) == (3, int)
    with pytest.raises(ss.SpikestrapError, match="n must be a whole number from 4 to 5, got"):
        whole_number("n", value, 4, 5)


def test_none_where_it_may_be():
    assert whole_or_none("n", None, 1) is None
    with pytest.raises(ss.SpikestrapError, match="n must be None or a whole number >= 1, got 0"):
        whole_or_none("n", 0, 1)


@pytest.mark.parametrize("value", [True, np.True_, 1.0, np.float32(1), "1", None, torch.tensor(1)])
def test_what_is_no_whole_number(value):
    with pytest.raises(ss.SpikestrapError, match="n must be a whole number >= 0, got"):
        whole_number("n", value, 0)


def network(time_steps):
    return ss.Network(block.lif.Affine(None, 2, 3), time_steps=time_steps)


TAKES = {
    "Network": lambda n: network(n).time_steps,
    "hold": lambda n: ss.hold(torch.rand(2, 5), n).shape[0],
    "Scheduler": lambda n: ss.Scheduler(num_sample_iter=n).num_sample_iter,
    "crossover": lambda n: ss.Scheduler(crossover_epochs=[n]).crossover_epochs[0],
    "epoch": lambda n: ss.Scheduler(crossover_epochs=[0] * 6).mode(n, n) and n,
    "LayerMode": lambda n: ss.LayerMode(ss.Mode.ANN, n).crossover,
    "cells": lambda n: AnnSampler(cells=n) and n,
    "Delay": lambda n: block.Delay(n, n).channels,
    "Upsample": lambda n: block.Upsample(n)(torch.rand(1, 1, 1, 1)).shape[2],
    "Options": lambda n: json.loads(json.dumps(asdict(Options(epochs=n))))["epochs"],
}


@pytest.mark.parametrize("take", TAKES.values(), ids=TAKES)
def test_numpys_whole_numbers_are_taken_and_a_bool_is_not(take):
    assert take(np.int64(5)) == 5
    with pytest.raises(ss.SpikestrapError, match=r"whole number .*got True"):
        take(True)


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), torch.tensor(0.5), Fraction(1, 2)])
def test_a_finite_number_of_any_library(value):
    found = finite_number("memory", value, 0, 1)
    assert (type(found), found) == (float, 0.5)


@pytest.mark.parametrize(
    "value",
    [True, None, "0.5", float("nan"), float("inf"), 10**400, np.ones(2), torch.ones(2), -0.5, 1.5],
)
def test_what_is_no_finite_number_in_the_range(value):
    with pytest.raises(
        ss.SpikestrapError, match="memory must be a finite number from 0 to 1, got "
    ):
        finite_number("memory", value, 0, 1)
