"""The neuron against that of spikestrap."""

import pytest
import torch

import spikestrap as ss
import spikestrap.lava_dl.slayer as slayer


def test_neuron_by_itself():
    neuron = slayer.neuron.cuba.Neuron(1.25, 0.25, 0.125, requires_grad=True)
    params = neuron.device_params
    assert (params["iDecay"], params["vDecay"], params["vThMant"]) == (1024, 512, 80)
    assert slayer.neuron.cuba.neuron_params(params) == {
        "threshold": 1.25,
        "current_decay": 0.25,
        "voltage_decay": 0.125,
    }
    z = torch.rand(3, 4, 16)
    chip = ss.neuron.ChipCUBA(ss.neuron.CUBA(1.25, 0.25, 0.125))
    on_grid = (4096 * z).round() / 4096
    assert torch.equal(neuron(z), chip(on_grid.movedim(-1, 0)).movedim(0, -1))
    assert len(list(neuron.parameters())) == 2
    assert torch.equal(neuron(z.view(3, 2, 2, 16)), neuron(z).view(3, 2, 2, 16))
    with pytest.raises(ss.SpikestrapError, match=r"expected \(N, C, ..., T\), .*\(3, 16\)"):
        neuron(z[:, 0])
    with pytest.raises(ss.SpikestrapError, match="norm and dropout"):
        slayer.neuron.cuba.Neuron(1.25, 0.25, 0.125, dropout=0.5)
