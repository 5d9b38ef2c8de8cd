from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from tests.neuron.cases import GRADED, ZOO, draw_parameters, make

from spikestrap import SpikestrapError
from spikestrap.frozen.neurons import Fused, firing
from spikestrap.kernel import use_backend
from spikestrap.neuron import CUBA, LIF, ChipCUBA, Neuron, NoisyLIF

FUSED = [kind for kind in ZOO if kind not in (*GRADED, NoisyLIF)]


@pytest.mark.parametrize("channels", [None, 3])
@pytest.mark.parametrize("kind", FUSED, ids=lambda kind: kind.__name__)
def test_spikes_are_the_neurons_own(kind, channels):
    neuron = kind(**draw_parameters(kind, 1, channels))
    fused = firing(neuron)
    assert isinstance(fused, Fused)
    # The last spans several blocks, whose channels go on where those of the one before end.
    for shape in [(6, 4, 3), (6, 2, 3, 5, 7), (1, 4, 3), (2, 2, 3, 50, 70)]:
        z = torch.randn(shape) + 0.3
        steps = 5 if len(z) == 1 else len(z)  # held, or not
        with torch.no_grad():
            expected = neuron(z, time_steps=steps)
            spikes, totals = fused(z, steps), fused.totals(z, steps)
        assert spikes.dtype is torch.uint8
        assert spikes.float().equal(expected)
        assert totals.equal(expected.sum(0))


class Clock(Neuron):
    """Fires every other step, whatever comes in."""

    def init_state(self, z):
        return (torch.zeros_like(z),)

    def step(self, z, state):
        v = state[0] + 0.5
        spikes = (v >= 1).to(z.dtype)
        return spikes, (v - spikes,)


class Head(Clock):
    """Starts from its input."""

    def init_state(self, z):
        return (z.clone(),)


def test_a_step_that_does_not_read_its_input():
    z = torch.rand(4, 2, 3)
    fused = firing(Clock())
    assert isinstance(fused, Fused)
    assert fused(z, 4).float().equal(Clock()(z))


def test_a_first_state_that_rests_on_values_is_left_alone():
    z = torch.rand(4, 2, 3)
    assert not isinstance(firing(Head()), Fused)
    assert firing(Head())(z, 4).float().equal(Head()(z))


def test_threads_may_share_a_neuron():
    neuron = LIF(threshold=1.0, voltage_decay=0.1)
    fused = firing(neuron)
    inputs = [torch.rand(5, 3, width) for width in (1, 7, 64, 65, 300)] * 20
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda z: fused(z, 5), inputs))
    for z, spikes in zip(inputs, found, strict=True):
        assert spikes.float().equal(neuron(z))


def test_the_chips_integers():
    neuron = ChipCUBA(CUBA(0.75, current_decay=0.25, voltage_decay=0.125))
    z = torch.randint(-64, 128, (7, 4, 5)) / 64
    assert firing(neuron)(z, 7).float().equal(neuron(z))


class Halves(LIF):
    """Half a spike for a spike."""

    def step(self, z, state):
        spikes, state = super().step(z, state)
        return spikes / 2, state


class Late(LIF):
    """Runs otherwise than step by step."""

    def forward(self, z, state=None, *, time_steps=None, return_state=False):
        spikes = super().forward(z, state, time_steps=time_steps)
        return torch.cat([torch.zeros_like(spikes[:1]), spikes[:-1]])


class Untraceable(Neuron):
    def init_state(self, z):
        return ()

    def step(self, z, state):
        return (z > 0).to(z.dtype) if bool(z.sum() > 0) else torch.zeros_like(z), state


@pytest.mark.parametrize(
    "neuron",
    [*map(make, GRADED), make(NoisyLIF), Halves(0.5, 0.1), Late(0.5, 0.1), Untraceable()],
    ids=lambda neuron: type(neuron).__name__,
)
def test_what_a_byte_cannot_hold_or_no_kernel_gives_runs_as_it_is(neuron):
    fire = firing(neuron)
    assert not isinstance(fire, Fused)
    z = torch.randn(5, 2, 3)
    with torch.no_grad():
        torch.manual_seed(0)
        expected = neuron(z)
        torch.manual_seed(0)
        assert fire(z, 5).equal(expected)


def test_the_reference_can_be_forced():
    with use_backend("reference"):
        assert not isinstance(firing(LIF(0.5, 0.1)), Fused)


def test_channels_that_do_not_fit():
    fused = firing(LIF(torch.tensor([0.5, 1.0]), 0.1))
    with pytest.raises(SpikestrapError, match=r"threshold has 2 values.*expected \(N, 2, \.\.\.\)"):
        fused(torch.zeros(4, 1, 3, 5, 5), 4)


def test_a_first_state_that_goes_by_the_place_in_an_image():
    class Dithered(LIF):
        def init_state(self, z):
            return (torch.linspace(0, 0.9, z.shape[-1]).expand_as(z).contiguous(),)

    neuron = Dithered(threshold=1.0, voltage_decay=0.1)
    z = 2 * torch.rand(5, 4, 3, 6, 6)
    with torch.no_grad():
        spikes = neuron(z)
    run = firing(neuron)
    assert torch.equal(run(z, 5).float(), spikes)
    torch.testing.assert_close(run.totals(z, 5), spikes.sum(0))
