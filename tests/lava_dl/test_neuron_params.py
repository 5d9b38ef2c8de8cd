"""lava-dl's neuron dicts."""

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
