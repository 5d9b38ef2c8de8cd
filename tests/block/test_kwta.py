import copy
import pickle

import pytest
import torch

from spikestrap import Mode, SpikestrapError
from spikestrap.block import KWTA, cuba, lif
from spikestrap.block.kwta import Competition
from spikestrap.neuron import IF, Neuron

NEURON = {"threshold": 1.0, "voltage_decay": 0.1}


def test_the_lateral_synapse_is_its_matrix():
    lateral = Competition(IF(2.0), 2, 0.25)
    spikes = (torch.rand(5, 6) > 0.5).float()
    matrix = 1.25 * torch.eye(6) - 1
    # Neurons of -1 or 1, as the paper has them: a field of 2 K - C, and half of all that.
    signs = 2 * spikes - 1
    expected = 2.0 * (signs @ matrix.T + 2 * 2 - 6) / 2
    torch.testing.assert_close(lateral(spikes), expected)


def test_by_hand():
    block = KWTA(IF(threshold=1.0, reset="subtract"), 1, 3, num_winners=1, self_excitation=0.5)
    with torch.no_grad():
        block.synapse.weight.copy_(torch.tensor([[1.0], [0.5], [0.25]]))
    spikes, state = block.unit.neuron(block.synapse(torch.ones(3, 1, 1)), return_state=True)
    # At rest all get 1 - 0.75 = 0.25. v: 1.25 fires, 0.75, 0.5; 0.25 is left of the first.
    # Its spike gives 0.75 to itself, -0.75 to the others. v: 2 fires, 0.5, 0; 1 is left.
    # v: 2.75 fires, 0.25, -0.5.
    assert spikes[:, 0].tolist() == [[1, 0, 0]] * 3
    assert state[0][0].tolist() == [1.75, 0.25, -0.5]


def test_as_many_fire_as_are_to_win():
    torch.manual_seed(0)
    x = (torch.rand(60, 20, 30) > 0.5).float()
    for winners in (1, 2, 5, 10):
        torch.manual_seed(1)
        neuron = {**NEURON, "reset": "subtract"}
        spikes = lif.KWTA(neuron, 30, 20, winners, weight_scale=2.0)(x)
        assert spikes[10:].sum(2).mean().item() == pytest.approx(winners, rel=0.1)


def test_learns_its_self_excitation():
    block = cuba.KWTA(NEURON, 6, 5, 2, weight_scale=3.0)
    block((torch.rand(9, 4, 6) > 0.5).float()).sum().backward()
    lateral = block.unit.neuron.synapse
    assert lateral.self_excitation.grad != 0
    with torch.no_grad():
        lateral.self_excitation.fill_(7.0)  # kept in [0, 1]
    fires = torch.eye(5)[:1]
    assert lateral(fires)[0, 0].item() == pytest.approx(1.0 + 2 - (1 + 1) / 2)


def test_copies_keep_to_their_own_threshold():
    block = lif.KWTA({**NEURON, "learnable": ("threshold",)}, 6, 5, 2)
    x = (torch.rand(9, 4, 6) > 0.5).float()
    for twin in (copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
        assert torch.equal(twin(x), block(x))
        driven = twin.unit.neuron
        assert driven.synapse.neuron[0] is driven.neuron
    assert [name for name, _ in block.named_parameters() if "threshold" in name] == [
        "unit.neuron.neuron.threshold"
    ]


@pytest.mark.parametrize("mode", [Mode.SAMPLE, Mode.FIT, Mode.ANN])
def test_refuses_to_be_bootstrapped(mode):
    with pytest.raises(SpikestrapError, match="cannot be bootstrapped: it hears its own"):
        lif.KWTA(NEURON, 6, 5, 2)(torch.rand(9, 4, 6), mode=mode)


@pytest.mark.parametrize("winners", [0, 6, 1.5, None])
def test_refuses_bad_numbers_of_winners(winners):
    with pytest.raises(
        SpikestrapError, match="num_winners must be a whole number from 1 to 5, got"
    ):
        lif.KWTA(NEURON, 6, 5, winners)


@pytest.mark.parametrize("excitation", [-0.1, 1.1])
def test_refuses_bad_excitations(excitation):
    with pytest.raises(SpikestrapError, match=r"self_excitation must be in \[0, 1\]"):
        lif.KWTA(NEURON, 6, 5, 2, excitation)


def test_needs_a_threshold():
    class Parrot(Neuron):
        def init_state(self, z):
            return ()

        def step(self, z, state):
            return (z > 0).to(z.dtype), state

    with pytest.raises(SpikestrapError, match="a neuron with a parameter `threshold`, got Parrot"):
        KWTA(Parrot(), 6, 5, 2)
