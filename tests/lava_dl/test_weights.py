"""Masks, and what scripts ask of weights."""

import numpy as np
import pytest
import torch
from tests.lava_dl.cases import NEURON, spikes

import spikestrap as ss
import spikestrap.lava_dl.bootstrap as bootstrap
import spikestrap.lava_dl.slayer as slayer

cuba, direct = bootstrap.block.cuba, slayer.block.cuba


def test_mask_holds_weights_at_zero_also_through_training():
    mask = torch.eye(7, 12).bool()
    for weight_norm in (False, True):
        block = direct.Dense(NEURON, 12, 7, 9, weight_norm, mask=mask, delay_shift=False)
        optimizer = torch.optim.SGD(block.parameters(), lr=10.0)
        block(spikes(5, 12, 8)).sum().backward()
        optimizer.step()
        assert block.synapse.weight_norm_enabled is weight_norm
        assert block.synapse.grad_norm > 0
        assert not block.synapse.weight[~mask].any()
        assert block.synapse.weight[mask].any()
    with pytest.raises(ss.SpikestrapError, match=r"mask of shape \(7, 12\)"):
        cuba.Dense(NEURON, 12, 7, mask=mask.T)


@pytest.mark.parametrize("mask", [None, torch.eye(7, 12).bool()])
def test_weights_are_written_in_place(mask):
    block, kept = cuba.Dense(NEURON, 12, 7, mask=mask), 1 if mask is None else mask
    for value, write in [
        (3.0, lambda weight: torch.nn.init.constant_(weight, 3.0)),
        (2.0, lambda weight: weight.data.fill_(2.0)),
        (-1.5, lambda weight: weight.detach().zero_().sub_(1.5)),
    ]:
        write(block.synapse.weight)
        expected = torch.full((7, 12), value) * kept
        assert torch.equal(block.block.synapse.weight, expected)
        assert torch.equal(block.synapse.weight, expected)


@pytest.mark.parametrize("mask", [None, torch.eye(7, 12).bool()])
@pytest.mark.parametrize("weight_norm", [False, True])
def test_weights_are_set(mask, weight_norm):
    block = direct.Dense(NEURON, 12, 7, weight_norm=weight_norm, mask=mask, delay_shift=False)
    optimizer = torch.optim.SGD(block.parameters(), lr=1.0)
    given = torch.nn.Parameter(torch.full((7, 12), 2.0))
    block.synapse.weight = given
    expected = given.detach() if mask is None else given.detach() * mask
    torch.testing.assert_close(block.block.synapse.weight.detach(), expected)
    torch.testing.assert_close(block.synapse.weight.detach(), expected)
    block(spikes(5, 12, 8)).sum().backward()  # what trained before still does, and alone
    optimizer.step()
    assert not torch.allclose(block.synapse.weight, expected)
    assert bool((given == 2.0).all())
    for wrong in (torch.ones(7, 12, 1), 2.0):
        with pytest.raises(
            ss.SpikestrapError, match=r"synapse.weight: expected .* shape \(7, 12\)"
        ):
            block.synapse.weight = wrong


def test_gradient_norm_is_that_of_the_lengths_with_weight_norm():
    for weight_norm in (False, True):
        block = direct.Dense(NEURON, 12, 7, 4, weight_norm)
        assert block.synapse.grad_norm == 0
        block(spikes(5, 12, 8)).sum().backward()
        layer = block.block.synapse.layer
        trained = layer.parametrizations.weight.original0 if weight_norm else layer.weight
        expected = np.linalg.norm(trained.grad.numpy()) / trained.numel()
        assert block.synapse.grad_norm == pytest.approx(expected)


def test_a_hook_set_afterwards_is_refused():
    rf = slayer.block.rf.Dense({"threshold": 0.1, "period": 10, "decay": 0.1}, 4, 3)
    for block in (cuba.Dense(NEURON, 12, 7), cuba.Input(NEURON), cuba.Affine(NEURON, 12, 7), rf):
        views = [] if isinstance(block, cuba.Input) else [block.synapse]
        for place in (block, *views):
            with pytest.raises(ss.SpikestrapError, match="given to the block: left out for 8-bit"):
                place.pre_hook_fx = torch.round
