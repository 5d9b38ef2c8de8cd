import pytest
import torch
from torch.autograd import forward_ad

from spikestrap.kernel import compiled
from spikestrap.kernel.generate import GROUP
from spikestrap.kernel.reference import scan
from spikestrap.kernel.trace import trace
from spikestrap.neuron import LIF

GAIN = torch.tensor([0.5, 1.0, 2.0])


def step(z, state, offset):
    (v,) = state
    v = 0.7 * v + GAIN * z * z + offset
    return (v > 1).to(z.dtype), (v,)


def test_operators_keep_torchs_contract():
    z, state, offset = torch.rand(4, 2, 3), (torch.rand(2, 3),), torch.rand(1, 2, 3)
    traced = trace(step, z[0], state, (offset[0],))
    number = traced.number
    lists = ([z, offset], list(state), traced.scalars, traced.channels)
    leaves = [[x.clone().requires_grad_() for x in part] for part in lists]
    torch.library.opcheck(torch.ops.spikestrap.scan_compiled.default, (number, *leaves, 4, 2))
    grads = [torch.rand(4, 2, 3), torch.rand(2, 3)]
    torch.library.opcheck(
        torch.ops.spikestrap.scan_compiled_backward.default,
        (number, grads, *lists, [torch.rand(1, 2, 3)], 2, [0, 1], [0], [0]),
    )


def test_equal_structures_share_a_number():
    z, state = torch.rand(2, 3), (torch.rand(2, 3),)
    numbers = [
        trace(step, z, state, (offset,)).number for offset in (torch.zeros(2, 3), torch.ones(2, 3))
    ]
    assert numbers[0] == numbers[1]


def leaky(z, state, gain):
    """Two states, and no spikes, so that any difference in rounding shows."""
    u, v = state
    u = 0.5 * u + z * gain
    v = 0.9 * v * GAIN + u * u.sigmoid()
    return u * v, (u, v)


def gradients(run, time_steps):
    """Results and gradients of z, a held gain and the first states."""
    generator = torch.Generator().manual_seed(0)
    leaves = [
        torch.randn(shape, generator=generator).requires_grad_()
        for shape in ((time_steps, 5, 3), (1, 5, 3), (5, 3), (5, 3))
    ]
    z, gain, *state = leaves
    out, last = run((z, gain), tuple(state))
    total = sum((x * torch.randn(x.shape, generator=generator)).sum() for x in (out, *last))
    return [out.detach(), *last], torch.autograd.grad(total, leaves)


@pytest.mark.parametrize("stretch", [1, 3, 8, 23, 100])
def test_stretches_give_what_one_piece_gives(monkeypatch, stretch):
    time_steps = 23

    def run(inputs, state):
        traced = trace(leaky, inputs[0][0], state, (inputs[1][0],))
        return compiled.run(traced, inputs, state, time_steps)

    monkeypatch.setattr(compiled, "stretch_of", lambda *sizes: time_steps)
    whole = gradients(run, time_steps)
    monkeypatch.setattr(compiled, "stretch_of", lambda *sizes: min(stretch, time_steps))
    parts = gradients(run, time_steps)
    for ours, expected in zip((*parts[0], *parts[1]), (*whole[0], *whole[1]), strict=True):
        assert torch.equal(ours, expected)
    plain = gradients(lambda inputs, state: scan(leaky, inputs, state, time_steps), time_steps)
    for ours, expected in zip((*parts[0], *parts[1]), (*plain[0], *plain[1]), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("neurons", [16, 64, 80, 81, 1000])
@pytest.mark.parametrize("stretch", [4, 23])
def test_results_may_go_past_the_caches(monkeypatch, neurons, stretch):
    lif = LIF(threshold=0.5, voltage_decay=0.1)
    monkeypatch.setattr(compiled, "stretch_of", lambda *sizes: stretch)
    z, grad = torch.rand(23, 1, neurons, requires_grad=True), torch.rand(23, 1, neurons)

    def results():
        spikes, state = lif(z, return_state=True)
        return spikes, *state, *torch.autograd.grad((spikes * grad).sum() + state[0].sum(), z)

    cached = results()
    monkeypatch.setattr(compiled, "_CACHED_BYTES", 0)
    for ours, expected in zip(results(), cached, strict=True):
        assert torch.equal(ours, expected)


@pytest.mark.parametrize("states", [0, 1, 2, 4, 7])
@pytest.mark.parametrize("time_steps", [1, 16, 100, 4096])
def test_stretches_are_even_and_keep_a_groups_trace_in_cache(time_steps, states):
    stretch = compiled.stretch_of(time_steps, states)
    count = -(-time_steps // stretch)
    assert 1 <= stretch <= time_steps
    assert count * stretch - time_steps < count
    assert 4 * GROUP * stretch * states <= 2**16  # bytes


def test_a_long_sequence_keeps_few_states(monkeypatch):
    # Of T = 4,096 steps, what is kept for the backward pass besides z.
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: kept.append(x.nelement()) or x, lambda x: x
    ):
        z = torch.rand(4096, 2, 3, requires_grad=True)
        state = (torch.zeros(2, 3),)
        held = torch.zeros(1, 2, 3)
        compiled.run(trace(step, z[0], state, (held[0],)), (z, held), state, 4096)
    assert sum(kept) <= 1.01 * z.nelement()


def test_a_calls_memory_does_not_grow_with_its_stretches(monkeypatch):
    calls = []
    run = compiled._Call.run
    monkeypatch.setattr(
        compiled._Call, "run", lambda call, *steps: calls.append(call) or run(call, *steps)
    )
    monkeypatch.setattr(compiled, "stretch_of", lambda *sizes: 2)
    z = torch.rand(40, 2, 3, requires_grad=True)
    LIF(threshold=1.0, voltage_decay=0.1)(z).sum().backward()
    assert len(calls) > 20
    assert max(len(call._alive) for call in calls) < 10


def test_inference_keeps_the_parameter_that_it_was_prepared_with():
    threshold = torch.tensor(1.0)

    def fire(z, state):
        return (z > threshold).to(z.dtype), state

    z = torch.full((4, 1, 1), 2.0)
    inference = compiled.Inference(trace(fire, z[0], ()), z, (), 4, counted=True)
    assert inference(z).item() == 4
    threshold.fill_(3)
    assert inference(z).item() == 4


def test_forward_differentiation_is_refused():
    neuron = LIF(threshold=1.0, voltage_decay=0.1)
    z = torch.rand(4, 2, 3)
    with forward_ad.dual_level():
        neuron.threshold = forward_ad.make_dual(neuron.threshold, torch.ones(()))
        with pytest.raises(NotImplementedError, match="jvp"):
            compiled.run(
                trace(neuron.step, z[0], neuron.init_state(z[0])), (z,), neuron.init_state(z[0]), 4
            )
