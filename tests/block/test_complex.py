import inspect

import pytest
import torch

from spikestrap import Mode, Network, SpikestrapError
from spikestrap.block import ComplexDense, Dense, adrf, adrf_iz, lif, rf, rf_iz
from spikestrap.neuron import LIF, RF

NEURON = {"threshold": 0.5, "period": 6.0, "decay": 0.1}
modules = pytest.mark.parametrize(
    "module", [rf, rf_iz, adrf, adrf_iz], ids=lambda m: m.__name__.rpartition(".")[2]
)


def neuron_of(module):
    return NEURON | ({"threshold_step": 0.2} if module in (adrf, adrf_iz) else {})


@modules
@pytest.mark.parametrize(
    ("name", "args", "features", "out"),
    [
        ("ComplexDense", (6, 4), (6,), (4,)),
        ("ComplexConv", (2, 4, 3), (2, 5, 5), (4, 3, 3)),
        ("ComplexConvT", (2, 4, 2, 2), (2, 5, 5), (4, 10, 10)),
    ],
)
def test_two_real_layers_drive_the_resonator(module, name, args, features, out):
    block = getattr(module, name)(neuron_of(module), *args, weight_scale=3.0)
    x = (torch.rand(12, 8, *features) > 0.5).float()
    spikes = block(x)
    assert spikes.shape == (12, 8, *out)
    assert spikes.dtype is torch.float32
    z = torch.complex(block.synapse.real(x), block.synapse.imag(x))
    assert torch.equal(spikes, block.unit.neuron(z))
    assert 0 < spikes.mean() < 1
    assert not torch.equal(block.synapse.real.weight, block.synapse.imag.weight)
    spikes.sum().backward()
    for part in (block.synapse.real, block.synapse.imag):
        assert (part.layer.weight.grad != 0).any()


@modules
@pytest.mark.parametrize("mode", [Mode.SAMPLE, Mode.FIT, Mode.ANN])
def test_a_complex_synapse_is_not_bootstrapped(module, mode):
    block = module.ComplexDense(neuron_of(module), 6, 4)
    with pytest.raises(SpikestrapError, match=r"cannot be bootstrapped.*depends on two numbers"):
        block(torch.rand(12, 8, 6), mode=mode)


def test_has_the_arguments_of_the_plain_block():
    assert inspect.signature(ComplexDense) == inspect.signature(Dense)
    block = rf.ComplexDense(NEURON, 6, out_neurons=4, bias=True, weight_norm=True)
    assert block.synapse.imag.layer.bias is not None
    half = block.to(torch.bfloat16)
    assert half(torch.rand(4, 2, 6).bfloat16()).shape == (4, 2, 4)


def test_goes_before_layers_in_half_precision():
    net = Network(rf.ComplexDense(NEURON, 6, 4), lif.Affine(None, 4, 3)).bfloat16()
    assert net(torch.rand(4, 2, 6).bfloat16(), Mode.SNN).dtype == torch.bfloat16


def test_of_an_instance():
    assert ComplexDense(RF(**NEURON), 6, 4)(torch.rand(4, 2, 6)).shape == (4, 2, 4)


def test_refuses():
    with pytest.raises(SpikestrapError, match=r"expected a resonator.*got LIF"):
        ComplexDense(LIF(1.0, 0.1), 6, 4)
    with pytest.raises(SpikestrapError, match="norm is for real inputs"):
        rf.ComplexDense({**NEURON, "norm": "batch"}, 6, 4)
