"""Golden traces: spikes and membranes are those of the peers' own implementations.

Inputs are drawn at random, so that no membrane stands exactly at the threshold, where the
peers differ in whether it fires.
"""

import math

import pytest
import torch

from spikestrap.neuron import ALIF, CUBA, IF, LIF, PLIF, RefractoryLIF

T, N, C = 40, 5, 7
DECAY = 0.125  # exact in floats, so that (1 - d) v and v - d v differ in the last bit at most


def draw(seed=0, scale=0.6):
    return scale * torch.randn(T, N, C, generator=torch.Generator().manual_seed(seed)) + 0.25


def trace(neuron, z):
    """Spikes and the membrane after each step, by streaming."""
    spikes, membranes, state = [], [], None
    for step in z.split(1):
        out, state = neuron(step, state, return_state=True)
        spikes.append(out[0])
        membranes.append(state[-1] if len(neuron.bounds) < 4 else state[1])
    return torch.stack(spikes), torch.stack(membranes)


def compare(neuron, z, spikes, membranes=None):
    ours, v = trace(neuron, z)
    assert torch.equal(ours, spikes)
    assert 0.02 < ours.mean() < 0.9
    if membranes is not None:
        torch.testing.assert_close(v, membranes, rtol=1e-5, atol=1e-5)


class TestSNNTorch:
    """Leaky is LIF, Synaptic is CUBA; its reset is at once with reset_delay=False.

    By subtraction it skips the reset of a membrane that is still over the threshold after the
    reset before, so the inputs here are too small for that.
    """

    @pytest.mark.parametrize("reset", ["zero", "subtract", "none"])
    def test_leaky(self, reset):
        import snntorch

        layer = snntorch.Leaky(1 - DECAY, reset_mechanism=reset, reset_delay=False)
        z, v, spikes, membranes = draw().clamp(-0.9, 0.9), layer.reset_mem(), [], []
        for step in z:
            s, v = layer(step, v)
            spikes.append(s)
            membranes.append(v)
        neuron = LIF(1.0, DECAY, reset=reset)
        compare(neuron, z, torch.stack(spikes), torch.stack(membranes))

    @pytest.mark.parametrize("reset", ["zero", "subtract", "none"])
    def test_synaptic(self, reset):
        import snntorch

        layer = snntorch.Synaptic(
            alpha=0.5, beta=1 - DECAY, reset_mechanism=reset, reset_delay=False
        )
        z, spikes, membranes = draw().clamp(-0.45, 0.45), [], []
        u, v = layer.reset_mem()
        for step in z:
            s, u, v = layer(step, u, v)
            spikes.append(s)
            membranes.append(v)
        neuron = CUBA(1.0, 0.5, DECAY, reset=reset)
        compare(neuron, z, torch.stack(spikes), torch.stack(membranes))


class TestSpikingJelly:
    """v_reset=0.0 is reset to zero, None by subtraction."""

    @pytest.mark.parametrize(("reset", "v_reset"), [("zero", 0.0), ("subtract", None)])
    @pytest.mark.parametrize("kind", ["IF", "LIF", "PLIF"])
    def test_nodes(self, kind, reset, v_reset):
        from spikingjelly.activation_based import neuron as peer

        options = {"step_mode": "m", "store_v_seq": True, "v_reset": v_reset}
        if kind == "IF":
            node, ours = peer.IFNode(**options), IF(1.0, reset=reset)
        elif kind == "LIF":
            node = peer.LIFNode(tau=1 / DECAY, decay_input=False, **options)
            ours = LIF(1.0, DECAY, reset=reset)
        else:
            node = peer.ParametricLIFNode(init_tau=3.0, **options)
            ours = PLIF(1.0, -math.log(3.0 - 1), reset=reset)
        z = draw(scale=2.0) if kind == "PLIF" else draw()
        with torch.no_grad():
            spikes = node(z)
        compare(ours, z, spikes, node.v_seq)

    def test_plif_learns_alike(self):
        """The gradient of w, by the arctan surrogate that both have."""
        from spikingjelly.activation_based import neuron as peer
        from spikingjelly.activation_based import surrogate

        node = peer.ParametricLIFNode(
            init_tau=3.0, step_mode="m", detach_reset=True, surrogate_function=surrogate.ATan(2.0)
        )
        ours = PLIF(1.0, -math.log(2.0), surrogate="arctan", tau_grad=0.5)
        z, weight = draw(scale=2.0), draw(1)
        (node(z) * weight).sum().backward()
        (ours(z) * weight).sum().backward()
        torch.testing.assert_close(ours.w.grad, node.w.grad, rtol=1e-4, atol=1e-4)
        assert ours.w.grad != 0


class TestNorse:
    """It multiplies its input by the leak, so it gets z / leak."""

    def test_lif(self):
        from norse.torch.functional.lif_box import (
            LIFBoxFeedForwardState,
            LIFBoxParameters,
            lif_box_feed_forward_step,
        )

        z, spikes, membranes = draw(), [], []
        state = LIFBoxFeedForwardState(v=torch.zeros(N, C))
        parameters = LIFBoxParameters(tau_mem_inv=torch.tensor(DECAY / 0.001), method="super")
        for step in z:
            s, state = lif_box_feed_forward_step(step / DECAY, state, parameters, dt=0.001)
            spikes.append(s)
            membranes.append(state.v)
        compare(LIF(1.0, DECAY), z, torch.stack(spikes), torch.stack(membranes))

    @pytest.mark.parametrize("steps", [0, 1, 3])
    def test_refractory(self, steps):
        from norse.torch.functional.lif_box import (
            LIFBoxFeedForwardState,
            LIFBoxParameters,
            lif_box_feed_forward_step,
        )
        from norse.torch.functional.lif_refrac import (
            LIFRefracFeedForwardState,
            LIFRefracParameters,
            compute_refractory_update,
        )

        z, spikes, membranes = draw(), [], []
        v, rho = torch.zeros(N, C), torch.zeros(N, C)
        box = LIFBoxParameters(tau_mem_inv=torch.tensor(DECAY / 0.001), method="super")
        refractory = LIFRefracParameters(box, torch.tensor(float(steps)))
        for step in z:
            # Norse's own composition: a step of the membrane, then the refractory update.
            before = LIFBoxFeedForwardState(v=v)
            s, after = lif_box_feed_forward_step(step / DECAY, before, box, dt=0.001)
            state = LIFRefracFeedForwardState(before, rho)
            v, s, rho = compute_refractory_update(state, s, after.v, refractory)
            spikes.append(s)
            membranes.append(v)
        ours = RefractoryLIF(1.0, DECAY, steps)
        z_spikes, state = ours(z, return_state=True)
        assert torch.equal(z_spikes, torch.stack(spikes))
        assert 0.02 < z_spikes.mean() < 0.9
        torch.testing.assert_close(state[0], membranes[-1], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(state[1], rho)


class TestSinabs:
    """(N, T, C) there; norm_input=False. Its current decays after it took its input."""

    @staticmethod
    def reset_fn(reset):
        from sinabs.activation import MembraneReset, MembraneSubtract

        return MembraneReset() if reset == "zero" else MembraneSubtract()

    @pytest.mark.parametrize("reset", ["zero", "subtract"])
    @pytest.mark.parametrize("kind", ["IAF", "LIF", "CUBA"])
    def test_layers(self, kind, reset):
        import sinabs.layers as sl
        from sinabs.activation import SingleSpike

        tau = -1 / math.log(1 - DECAY)
        options = {"reset_fn": self.reset_fn(reset), "record_states": True}
        options["spike_fn"] = SingleSpike
        z = draw()
        if kind == "IAF":
            layer, ours = sl.IAF(**options), IF(1.0, reset=reset)
        elif kind == "LIF":
            layer = sl.LIF(tau_mem=tau, norm_input=False, **options)
            ours = LIF(1.0, DECAY, reset=reset)
        else:
            layer = sl.LIF(tau_mem=tau, tau_syn=-1 / math.log(0.5), norm_input=False, **options)
            ours = CUBA(1.0, 0.5, DECAY, reset=reset)
        given = 2 * z if kind == "CUBA" else z  # u there is (1 - d) (u + z)
        with torch.no_grad():
            spikes = layer(given.transpose(0, 1)).transpose(0, 1)
        membranes = layer.recordings["v_mem"].transpose(0, 1)
        compare(ours, z, spikes, membranes)

    def test_alif(self):
        """Where the equations coincide: no refractory state, reset by subtraction.

        Its b is (threshold - b0) / adapt_scale, decays by alpha after a step and rises by
        1 - alpha with a spike, so that the next step sees alpha b + (1 - alpha): ours rises by
        threshold_step before it decays by the same alpha.
        """
        import sinabs.layers as sl
        from sinabs.activation import SingleSpike

        alpha, scale = 0.75, 1.5
        layer = sl.ALIF(
            tau_mem=-1 / math.log(1 - DECAY),
            tau_adapt=-1 / math.log(alpha),
            adapt_scale=scale,
            norm_input=False,
            spike_fn=SingleSpike,
            reset_fn=self.reset_fn("subtract"),
        )
        z = draw(scale=1.0)
        with torch.no_grad():
            spikes = layer(z.transpose(0, 1)).transpose(0, 1)
        ours = ALIF(
            1.0,
            scale * (1 - alpha) / alpha,
            1.0,
            DECAY,
            threshold_decay=1 - alpha,
            refractory_decay=1.0,
            reset="subtract",
        )
        assert torch.equal(ours(z), spikes)
        assert 0.02 < spikes.mean() < 0.9
