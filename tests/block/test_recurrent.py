import copy
import pickle

import pytest
import torch

import spikestrap as ss
from spikestrap import Mode, SpikestrapError
from spikestrap.block import Recurrent, cuba
from spikestrap.block.recurrent import SelfDriven
from spikestrap.kernel import use_backend
from spikestrap.neuron import CUBA, LIF, NoisyLIF

NEURON = {"threshold": 0.5, "current_decay": 0.5, "voltage_decay": 0.1}


def draw(*shape):
    return (torch.rand(shape, generator=torch.Generator().manual_seed(0)) > 0.5).float()


def test_by_hand():
    block = Recurrent(LIF(threshold=1.0, voltage_decay=1.0), 1, 2)
    with torch.no_grad():
        block.synapse.weight.copy_(torch.tensor([[1.5], [0.5]]))
        # The second neuron gets 1 from the first, the first -1 from the second.
        block.unit.neuron.synapse.weight.copy_(torch.tensor([[0.0, -1.0], [1.0, 0.0]]))
    spikes = block(torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0]).view(5, 1, 1))
    # Currents: (1.5, 0.5); (1.5, 1.5); (0.5, 1.5), inhibited; (-1, 0); (0, 0).
    assert spikes[:, 0].tolist() == [[1, 0], [1, 1], [0, 1], [0, 0], [0, 0]]


def test_is_a_loop_over_time():
    block = cuba.Recurrent(NEURON, 6, 5, bias=True, weight_scale=3.0)
    x = draw(9, 4, 6)
    z, back = block.synapse(x), block.unit.neuron.synapse
    neuron, state, last, expected = CUBA(**NEURON), None, torch.zeros(4, 5), []
    for step in z:
        out, state = neuron((step + back(last)).unsqueeze(0), state, return_state=True)
        last = out[0]
        expected.append(last)
    assert torch.equal(block(x), torch.stack(expected))
    assert 0 < block(x).mean() < 1


@pytest.mark.parametrize("backend", ["reference", "auto"])
def test_in_chunks_is_as_whole(backend):
    driven = SelfDriven(NoisyLIF(1.0, 0.1, 0.3), torch.nn.Linear(3, 3))
    z = torch.randn(8, 4, 3)
    with use_backend(backend):
        torch.manual_seed(1)
        whole, end = driven(z, return_state=True)
        torch.manual_seed(1)
        first, state = driven(z[:3], return_state=True)
        rest, last = driven(z[3:], state, return_state=True)
    assert torch.equal(whole, torch.cat([first, rest]))
    assert all(torch.equal(a, b) for a, b in zip(end, last, strict=True))


def test_learns_both_synapses():
    block = cuba.Recurrent(NEURON, 6, 5, weight_norm=True)
    block(draw(9, 4, 6)).sum().backward()
    grads = {name: p.grad for name, p in block.named_parameters()}
    assert len(grads) == 4  # direction and length, of two synapses
    assert all((grad != 0).any() for grad in grads.values())


def test_a_held_input_is_the_repeated_one():
    block = cuba.Recurrent(NEURON, 6, 5)
    x = draw(4, 6)
    assert torch.equal(block(ss.hold(x, 7)), block(ss.hold(x, 7).clone()))


def test_delays_what_it_sends_and_not_what_it_hears():
    plain = cuba.Recurrent(NEURON, 6, 5, weight_scale=3.0)
    late = cuba.Recurrent(NEURON, 6, 5, delay=3)
    late.load_state_dict(plain.state_dict(), strict=False)
    with torch.no_grad():
        late.delay.delay.fill_(2.0)
    x = draw(9, 4, 6)
    assert torch.equal(late(x)[2:], plain(x)[:-2])
    assert late(x)[:2].sum() == 0


@pytest.mark.parametrize("mode", [Mode.SAMPLE, Mode.FIT, Mode.ANN])
def test_refuses_to_be_bootstrapped(mode):
    block = cuba.Recurrent(NEURON, 6, 5)
    with pytest.raises(SpikestrapError, match=r"cannot be bootstrapped: it hears its own.*SNN"):
        block(draw(9, 4, 6), mode=mode)


def test_counts_what_it_fired_not_what_arrives():
    block = cuba.Recurrent(NEURON, 6, 5, weight_scale=4.0, delay=20, count_log=True)
    with torch.no_grad():
        block.delay.delay.fill_(20.0)
    fired = []
    block.unit.register_forward_hook(lambda unit, args, spikes: fired.append(spikes.mean()))
    sent, rate = block(draw(9, 4, 6))
    assert not sent.any()
    assert rate == fired[0] > 0


def test_stands_below_the_crossover():
    net = ss.Network(
        cuba.Recurrent(NEURON, 6, 5), cuba.Dense(NEURON, 5, 4), cuba.Affine(NEURON, 4, 3)
    )
    for mode in (Mode.SAMPLE, Mode.FIT, Mode.ANN):
        assert net(draw(9, 4, 6), ss.LayerMode(mode, crossover=1)).shape == (4, 3)


def test_options_of_the_dict_hold():
    block = cuba.Recurrent({**NEURON, "norm": "batch", "dropout": 0.5}, 6, 5, count_log=True)
    assert block.norm is not None
    assert block.dropout is not None
    out, rate = block(draw(9, 4, 6))
    assert out.shape == (9, 4, 5)
    assert rate.shape == ()


def test_copies_and_half_precision():
    block = cuba.Recurrent(NEURON, 6, 5)
    x = draw(9, 4, 6)
    for twin in (copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
        assert torch.equal(twin(x), block(x))
    assert block.to(torch.bfloat16)(x.bfloat16()).dtype is torch.bfloat16


@pytest.mark.parametrize("delay", [-1, 1.5, None])
def test_refuses_bad_delays(delay):
    with pytest.raises(SpikestrapError, match=r"Recurrent: delay must be a whole number >= 0"):
        cuba.Recurrent(NEURON, 6, 5, delay=delay)


def test_learns_both_synapses_at_the_chips_precision():
    block = Recurrent(CUBA(threshold=0.5, current_decay=0.5), 6, 5, weight_scale=3.0, delay=2)
    net = ss.Network(block, precision="loihi")
    net(draw(9, 4, 6)).sum().backward()
    back = block.unit.neuron.synapse.weight
    assert block.synapse.weight.grad.any()
    assert back.grad.any()
    z = block.unit.neuron.quantizer(block.unit.neuron.synapse, None, torch.eye(5))
    assert torch.equal(z * 32, (back.T * 32).round().clamp(-128, 127))


@pytest.mark.parametrize(
    ("neuron", "message"),
    [
        ({"neuron": NoisyLIF(1.0, 0.1, 0.3)}, "NoisyLIF: the chip's precision is that of CUBA"),
        (CUBA(threshold=0.5, current_decay=0.5), "with a bias, a norm or an Input"),
    ],
)
def test_what_the_chip_cannot_do_is_refused_and_the_block_unchanged(neuron, message):
    block = Recurrent(neuron, 6, 5, bias=True)
    with pytest.raises(SpikestrapError, match=message):
        block.quantize()
    assert isinstance(block.unit.neuron, SelfDriven)
    assert block(draw(9, 4, 6)).shape == (9, 4, 5)
