"""A kept trace against the step itself, after all that could make it out of date."""

import copy

import pytest
import torch

from spikestrap.kernel import use_backend
from spikestrap.kernel.replay import trace_of
from spikestrap.neuron import ALIF, CUBA, LIF, RF, ChipCUBA, Firing, Neuron


def of(neuron, z):
    return trace_of(neuron, z[0], neuron.init_state(z[0]), tuple(e[0] for e in neuron.extra(z, 1)))


def check(neuron, z):
    with use_backend("reference"):
        expected = neuron(z)
    assert torch.equal(neuron(z), expected)


def swap(neuron):
    neuron.threshold = torch.tensor(0.4)


def load(neuron):
    state = {name: value / 2 for name, value in neuron.state_dict().items()}
    neuron.load_state_dict(state)


def by_channel(neuron):
    neuron.threshold = torch.tensor([0.3, 0.9, 0.5])


CHANGES = {
    "in place": lambda n: n.threshold.mul_(0.5),
    "behind autograd's back": lambda n: n.threshold.data.mul_(0.5),
    "another tensor": swap,
    "a value a channel": by_channel,
    "loaded": load,
    "another reset": lambda n: setattr(n, "firing", Firing("none")),
    "another surrogate": lambda n: setattr(n, "firing", Firing(n.firing.reset, "arctan")),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("make", [LIF, CUBA])
def test_a_change_is_seen(make, change):
    neuron = make(threshold=1.0, voltage_decay=0.25, reset="subtract")
    z = torch.rand(6, 4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    check(neuron, z)
    before = of(neuron, z)
    assert of(neuron, z) is before
    CHANGES[change](neuron)
    assert of(neuron, z) is not before
    check(neuron, z)
    grads = []
    for backend in ("auto", "reference"):
        with use_backend(backend):
            grads += torch.autograd.grad(neuron(z).sum(), z)
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-6)


def test_modes_of_autograd_have_traces_of_their_own():
    neuron, z = LIF(threshold=1.0, voltage_decay=0.25), torch.rand(6, 4, 3)
    with torch.inference_mode():
        neuron(z)
        inferred = of(neuron, z)
    with torch.no_grad():
        neuron(z)
        assert of(neuron, z) is not inferred
    z.requires_grad_()
    neuron(z).sum().backward()
    assert z.grad.abs().sum() > 0


@pytest.mark.parametrize("shape", [(2, 4, 3), (2, 4, 3, 5), (2, 4, 5)])
def test_shapes_of_its_own(shape):
    neuron = ALIF(threshold=1.0, voltage_decay=0.25, threshold_decay=0.1, threshold_step=0.5)
    check(neuron, torch.rand(2, 4, 3))
    check(neuron, torch.rand(shape))


def test_a_learnt_parameter_gets_its_gradient_every_time():
    neuron, z = (
        LIF(threshold=1.0, voltage_decay=0.25, learnable=("threshold",)),
        torch.rand(6, 4, 3),
    )
    grads = [torch.autograd.grad(neuron(z).sum(), neuron.threshold)[0] for _ in range(2)]
    assert torch.equal(*grads)
    with torch.no_grad():
        assert of(neuron, z) is of(neuron, z)
    assert of(neuron, z) is not of(neuron, z)


def test_the_chips_neuron_too():
    neuron = ChipCUBA(CUBA(threshold=1.0, voltage_decay=0.25))
    z = torch.rand(6, 4, 3).mul(64).round() / 64
    check(neuron, z)
    assert of(neuron, z) is of(neuron, z)
    neuron.threshold.mul_(0.5)
    check(neuron, z)


def test_a_copy_has_its_own():
    neuron, z = RF(threshold=1.0, period=10.0, decay=0.1), torch.rand(6, 4, 3)
    neuron(z)
    other = copy.deepcopy(neuron)
    other.threshold.mul_(0.5)
    check(other, z)
    check(neuron, z)


def test_what_others_wrote_is_traced_every_time():
    scale = 1.0

    class Mine(LIF):
        def step(self, z, state):
            return super().step(scale * z, state)

    class Whole(Neuron):
        def init_state(self, z):
            return ()

        def step(self, z, state):
            return (scale * z > 0.5).float(), state

    z = torch.rand(6, 4, 3)
    for neuron in (Mine(threshold=1.0, voltage_decay=0.25), Whole()):
        scale = 1.0
        check(neuron, z)
        scale = 0.5
        check(neuron, z)
        assert of(neuron, z) is not of(neuron, z)

    patched = LIF(threshold=1.0, voltage_decay=0.25)
    patched.step = lambda z, state: LIF.step(patched, scale * z, state)
    check(patched, z)
    scale = 1.0
    check(patched, z)
