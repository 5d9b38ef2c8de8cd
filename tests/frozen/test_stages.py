import numpy as np
import pytest
import torch

from spikestrap import block
from spikestrap.frozen.stages import Layer, Mean, Pool, Readout, Stateless, Totals, stages_of
from spikestrap.frozen.synapses import SPARSE, Dense
from spikestrap.kernel import inference
from spikestrap.neuron import LIF, NoisyLIF


def kinds(*blocks):
    return [type(stage) for stage in stages_of([each.eval() for each in blocks])]


def lif(inputs=8, outputs=8, neuron=None, **options):
    return block.Dense(neuron or LIF(1.0, 0.1), inputs, outputs, **options)


def test_only_the_last_neurons_are_summed_up_and_divided_late():
    tail = (block.AvgPool(2), block.Flatten(), block.Affine(None, 8, 3))
    assert kinds(lif(), lif(), *tail) == [Layer, Totals, Pool, Stateless, Mean, Readout]
    assert kinds(lif(), block.Dropout()) == [Totals, Stateless, Mean]
    assert kinds(block.Affine(None, 8, 3)) == [Readout]


@pytest.mark.parametrize(
    "last",
    [lif(delay_shift=True), lif(neuron=NoisyLIF(1.0, 0.1)), block.Recurrent(LIF(1.0, 0.1), 8, 8)],
)
def test_what_arrives_late_or_has_no_kernel_is_not_summed_up(last):
    assert kinds(lif(), last, block.Affine(None, 8, 3)) == [Layer, Layer, Readout]


@pytest.mark.parametrize(("share", "calls"), [(0.0, 1), (SPARSE, 1), (SPARSE + 0.01, 0)])
def test_few_spikes_are_added_row_by_row(monkeypatch, share, calls):
    called = []
    kernel = inference.add_rows
    monkeypatch.setattr(
        "spikestrap.frozen.synapses.add_rows", lambda *a: called.append(a) or kernel(*a)
    )
    spikes = torch.zeros(1, 10, 100, dtype=torch.uint8)
    spikes.view(-1)[torch.randperm(1000)[: round(share * 1000)]] = 1
    weight, bias = torch.rand(40, 100), torch.rand(40)
    z = Dense(weight, bias)(spikes)
    assert len(called) == calls
    assert torch.allclose(z, spikes.float() @ weight.T + bias, atol=1e-5)


def test_a_window_that_may_overflow_a_byte_is_pooled_as_floats():
    spikes = torch.ones(1, 1, 8, 16, 17, dtype=torch.uint8)
    for window, fused in (((15, 17), True), ((16, 16), False)):
        stage = Pool(block.AvgPool(window))
        assert stage.fused == fused
        assert np.allclose(stage(spikes, 1), 1.0)
