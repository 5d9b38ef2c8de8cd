"""lava-dl's neuron dicts."""

import pytest
import torch
from tests.lava_dl.cases import NEURON

import spikestrap as ss
import spikestrap.lava_dl.bootstrap as bootstrap
import spikestrap.lava_dl.slayer as slayer

cuba = bootstrap.block.cuba


def test_neuron_options_reach_the_block():
    norm = slayer.neuron.norm.MeanOnlyBatchNorm
    params = {**NEURON, "norm": norm, "dropout": slayer.neuron.Dropout(p=0.25)}
    block = cuba.Dense(params, 12, 7)
    assert isinstance(block.block.norm, ss.norm.MeanOnlyNorm)
    assert block.block.dropout.p == 0.25
    assert cuba.Pool(params, 2).block.norm is None
    assert params["norm"] is norm  # the caller's dict stays
    learns = cuba.Dense({**NEURON, "requires_grad": True}, 12, 7)
    names = {name.rpartition(".")[2] for name, p in learns.neuron.named_parameters()}
    assert names == {"current_decay", "voltage_decay"}


RESONATES = {"threshold": 1.0, "period": 7.6, "decay": 0.02}
ADAPTS = {"threshold_step": 0.1, "threshold_decay": 0.1, "refractory_decay": 0.1}


@pytest.mark.parametrize("name", ["rf", "rf_iz", "adrf", "adrf_iz"])
@pytest.mark.parametrize("log_init", [True, False])
def test_log_init_does_nothing_without_periods_of_a_range(name, log_init):
    block = getattr(slayer.block, name)
    params = {**RESONATES, **(ADAPTS if name.startswith("ad") else {}), "log_init": log_init}
    assert block.Dense({**params, "shared_param": True}, 8, 4).neuron.period == pytest.approx(7.6)
    with pytest.raises(ss.SpikestrapError, match="shared_param=False is not carried over"):
        block.Dense({**params, "shared_param": False}, 8, 4)


def test_a_threshold_that_the_cut_would_take_to_0_is_refused():
    assert cuba.Dense({**NEURON, "threshold": 1 / 64}, 2, 2).neuron.threshold.item() == 1 / 64
    each = torch.tensor([0.01, 1.0])  # one a channel is none of lava-dl's, and is not cut
    assert torch.equal(cuba.Dense({**NEURON, "threshold": each}, 2, 2).neuron.threshold, each)
    with pytest.raises(ss.SpikestrapError, match=r"Dense: threshold=0\.01 is cut to whole 1/64"):
        cuba.Dense({**NEURON, "threshold": 0.01}, 2, 2)


@pytest.mark.parametrize("name", ["current_decay", "voltage_decay"])
def test_decays_have_no_default(name):
    neuron = {key: value for key, value in NEURON.items() if key != name}
    alif = {**neuron, "threshold_step": 0.1}
    for make, given in ((cuba.Dense, neuron), (slayer.block.alif.Dense, alif)):
        with pytest.raises(ss.SpikestrapError, match=f"Dense: expected {name} in the neuron dict"):
            make(given, 2, 2)
