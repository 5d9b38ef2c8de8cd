import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spikestrap import SpikestrapError
from spikestrap.kernel import explain, use_backend
from spikestrap.neuron import CUBA, IF, LIF, ChipCUBA


def chip(seed, reset, detach_reset=True):
    draw = torch.Generator().manual_seed(seed)
    values = {name: torch.rand(3, generator=draw) for name in ("current_decay", "voltage_decay")}
    return ChipCUBA(
        CUBA(
            0.2 + torch.rand(3, generator=draw),
            **values,
            v_init=0.3,
            reset=reset,
            detach_reset=detach_reset,
            learnable=("threshold", "current_decay", "voltage_decay"),
        )
    )


def run(neuron, z, weight):
    z = z.clone().requires_grad_()
    neuron.zero_grad()
    spikes, state = neuron(z, return_state=True)
    (spikes * weight).sum().backward()
    return spikes.detach(), state, [z.grad, *(p.grad.clone() for p in neuron.parameters())]


@given(seed=st.integers(0, 999), reset=st.sampled_from(["zero", "subtract", "none"]))
def test_fused_and_reference_agree(seed, reset):
    neuron = chip(seed, reset, detach_reset=seed % 2 == 0)
    draw = torch.Generator().manual_seed(seed)
    # Up to some 500: the current wraps around, the membrane saturates.
    size = 10.0 ** (seed % 4 - 1)
    z = (size * torch.randn(9, 4, 3, 2, generator=draw) * 64).round() / 64
    weight = torch.randn(9, 4, 3, 2, generator=draw)
    found = []
    for backend in ("fused", "reference"):
        with use_backend(backend):
            found.append(run(neuron, z, weight))
    (spikes, state, grads), (expected, last, expected_grads) = found
    assert torch.equal(spikes, expected)
    assert all(torch.equal(a, b.detach()) for a, b in zip(state, last, strict=True))
    for grad, wanted in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(grad, wanted, rtol=1e-4, atol=1e-5)


def test_decay_is_rounded_toward_zero():
    neuron = ChipCUBA(CUBA(100.0, current_decay=1.0, voltage_decay=0.25))
    _, (_, v) = neuron(torch.tensor([[[5 / 64, -5 / 64]]]), return_state=True)
    assert (v * 4096).tolist() == [[320.0, -320.0]]
    # 320 * 3072 / 4096 = 240, 240 -> 180, 180 -> 135, 135 -> 101.25, cut to 101 on both sides.
    _, (_, v) = neuron(torch.zeros(4, 1, 2), (torch.zeros(1, 2), v), return_state=True)
    assert (v * 4096).tolist() == [[101.0, -101.0]]


def test_parameters_are_on_the_chips_grids_and_keep_their_names():
    cuba = CUBA(0.503, 0.0, 1.0, v_init=0.1, learnable=("threshold",))
    neuron = ChipCUBA(cuba)
    assert neuron.state_dict().keys() == cuba.state_dict().keys()
    values = [value.item() for value in neuron.values()]
    assert values == [1 / 4096, 4095 / 4096, 32 / 64, round(0.1 * 4096) / 4096]


def test_lif_and_if_have_no_current_to_filter():
    assert not ChipCUBA(LIF(1.0, 0.5)).filters_current
    assert not ChipCUBA(IF(1.0)).filters_current
    assert not ChipCUBA(CUBA(1.0)).filters_current
    assert ChipCUBA(CUBA(1.0, 0.5)).filters_current
    assert ChipCUBA(CUBA(1.0, learnable=("current_decay",))).filters_current


def test_other_neurons_are_refused():
    class Other(IF):
        def step(self, z, state):
            return super().step(z - 1, state)

    with pytest.raises(SpikestrapError, match="Other: the chip's precision is that of CUBA, LIF"):
        ChipCUBA(Other(1.0))


def test_has_a_kernel():
    assert explain(ChipCUBA(CUBA(1.0, 0.5)), torch.rand(4, 2, 3)).backend == "compiled"
