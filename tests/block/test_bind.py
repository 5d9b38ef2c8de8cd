"""The modules of the zoo's neurons. What blocks do is in test_base."""

import inspect

import pytest
import torch

import spikestrap as ss
from spikestrap import Mode, SpikestrapError
from spikestrap.block import bind

LEAKY = {"threshold": 0.5, "voltage_decay": 0.1}
RESONATOR = {"threshold": 0.2, "period": 6.0, "decay": 0.1}
ADAPTIVE = {"threshold_step": 0.1}
MODULES = {
    "alif": (ss.neuron.ALIF, {"threshold": 0.5} | ADAPTIVE),
    "plif": (ss.neuron.PLIF, {"threshold": 0.3}),
    "noisy_lif": (ss.neuron.NoisyLIF, LEAKY | {"noise": 0.1}),
    "refractory_lif": (ss.neuron.RefractoryLIF, LEAKY),
    "rf": (ss.neuron.RF, RESONATOR),
    "rf_iz": (ss.neuron.RFIzhikevich, RESONATOR),
    "adrf": (ss.neuron.AdRF, RESONATOR | ADAPTIVE),
    "adrf_iz": (ss.neuron.AdRFIzhikevich, RESONATOR | ADAPTIVE),
}
modules = pytest.mark.parametrize("name", MODULES)


@modules
def test_has_every_block_of_that_neuron(name):
    module, (kind, _) = getattr(ss.block, name), MODULES[name]
    for plain in bind.BOUND:
        bound = getattr(module, plain.__name__)
        assert issubclass(bound, plain)
        assert bound.neuron_type is kind
        assert inspect.signature(bound) == inspect.signature(plain)
        assert bound.__module__ == module.__name__


@modules
def test_runs_in_all_modes(name):
    module, (kind, neuron) = getattr(ss.block, name), MODULES[name]
    block = module.Dense({**neuron, "norm": "batch"}, 6, 4, weight_scale=3.0)
    assert type(block.unit.neuron) is kind
    x = (torch.rand(16, 200, 6, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    spikes = block(x, mode=Mode.SAMPLE)
    rates = block(x, mode=Mode.FIT)
    assert spikes.shape == (16, 200, 4)
    assert rates.shape == (200, 4)
    assert 0 < spikes.mean() < 1
    # Of the same inputs: the curve is right in the mean, whatever it explains of the rest.
    assert abs(rates.mean() - spikes.mean()) < 0.05
    block(x, mode=Mode.ANN).sum().backward()
    assert torch.isfinite(block.synapse.weight.grad).all()


@modules
def test_refuses_unknown_parameters(name):
    module, (_, neuron) = getattr(ss.block, name), MODULES[name]
    with pytest.raises(SpikestrapError, match="unknown neuron parameter 'treshold'"):
        module.Dense({**neuron, "treshold": 1.0}, 6, 4)
