"""lava-dl's neuron dicts."""

import pytest
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
