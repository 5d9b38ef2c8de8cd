"""Blocks without spikes."""

import copy

import pytest
import torch
from tests.lava_dl.cases import NEURON, pair, spikes

import spikestrap as ss
import spikestrap.lava_dl.bootstrap as bootstrap
import spikestrap.lava_dl.slayer as slayer

cuba, direct = bootstrap.block.cuba, slayer.block.cuba


def test_readout_keeps_time_and_its_mean_is_the_logits():
    ours, theirs = pair(ss.block.Affine(None, 12, 7, bias=False), cuba.Affine(NEURON, 12, 7))
    x = spikes(16, 5, 12)
    y = theirs(x.movedim(0, -1), mode=ss.Mode.SNN)
    assert y.shape == (5, 7, 16)
    torch.testing.assert_close(y.mean(-1), ours(x))
    torch.testing.assert_close(theirs(x.movedim(0, -1)).squeeze(-1), ours(x))


def test_slayer_readout_gives_a_voltage_that_never_resets():
    affine = direct.Affine({**NEURON, "current_decay": 0.5, "voltage_decay": 0.25}, 1, 1)
    with torch.no_grad():
        affine.block.synapse.layer.weight.fill_(2.0)
    x = torch.tensor([1.0, 0.0, 1.0]).view(1, 1, 3)
    # u = 2, 1, 2.5; v = 2, 2.5, 4.375
    assert affine(x).flatten().tolist() == [2.0, 2.5, 4.375]
    flat = direct.Affine(NEURON, 1, 1, dynamics=False)
    flat.load_state_dict(affine.state_dict(), strict=False)
    assert flat(x).flatten().tolist() == [2.0, 0.0, 2.0]


def test_average_of_groups():
    x = torch.arange(6.0).view(1, 6, 1).expand(2, 6, 4)
    assert cuba.Average(3)(x)[0, :, 0].tolist() == [0.5, 2.5, 4.5]
    with pytest.raises(ss.SpikestrapError, match="groups of one size"):
        cuba.Average(4)(x)


def test_readouts_have_the_neuron_of_their_dict_as_there():
    """Scripts go by it: if hasattr(block, "neuron"), the block's events count."""
    neuron = {**NEURON, "requires_grad": True}
    changes = {"threshold": 0.1, "activation": torch.relu, "requires_grad": True}
    for block in (cuba.Affine(neuron, 4, 3), direct.Affine(neuron, 4, 3, dynamics=False)):
        assert isinstance(block.neuron, ss.neuron.ChipCUBA)
        assert block.neuron.voltage_decay.item() == pytest.approx(0.03)
        assert [name for name, _ in block.named_parameters()] == ["block.synapse.layer.weight"]
        assert not any("neuron" in name for name in block.state_dict())
    output = slayer.block.sigma_delta.Output(changes, 4, 3)
    assert output.neuron.threshold.item() == pytest.approx(0.1, abs=1 / 64)
    assert [name for name, _ in output.named_parameters()] == ["block.synapse.layer.weight"]
    assert cuba.Affine(None, 4, 3).neuron is None
    assert not hasattr(cuba.Flatten(), "neuron")
    assert not hasattr(cuba.Average(2), "neuron")

    runs = direct.Affine(neuron, 4, 3)
    assert runs.neuron is runs.membrane
    assert runs.neuron.voltage_decay in set(runs.parameters())
    with torch.no_grad():
        runs.membrane.voltage_decay.fill_(-0.5)
    assert runs.neuron.voltage_decay.item() == 0.0
    again = copy.deepcopy(runs)
    assert again.neuron is again.membrane
    assert again.neuron is not runs.neuron
