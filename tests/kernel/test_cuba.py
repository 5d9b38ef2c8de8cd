"""Fused kernels against the reference: spikes and states to the bit, gradients closely."""

import shutil

import numba
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.neuron.cases import (
    PARAMETERS,
    draw_input,
    draw_parameters,
    every_integrator,
    options,
    seeds,
)

from spikestrap import SpikestrapError
from spikestrap.kernel import compiled, use_backend
from spikestrap.neuron import CUBA, IF, LIF

WIDTH = compiled._WIDEST
SHAPES = [
    (1, 3),
    (4, 7),
    (1, 2, 3),
    (5, 1, 1),
    (5, 3, 7),
    (3, 2, 3, 4, 5),
    (3, 1, 3, 1, 5),
    (2, 1, WIDTH + 1),
    (2, 3, 5, 31, WIDTH // 200),  # more than two blocks, no multiple of one
    (300, 2, 3),
    (3000, 1, 2),
]


def run(backend, neuron, leaf, state, view=lambda z: z, time_steps=None):
    """Spikes, states, and the gradients of everything that has one."""
    neuron.zero_grad()
    leaf = leaf.clone().requires_grad_()
    state = tuple(s.clone().requires_grad_() for s in state)
    torch.manual_seed(0)  # of a noisy neuron's noise
    with use_backend(backend):
        spikes, last = neuron(view(leaf), state, time_steps=time_steps, return_state=True)
    generator = torch.Generator().manual_seed(1)
    total = (spikes * torch.randn(spikes.shape, generator=generator)).sum()
    for s in last:
        total = total + (s * torch.randn(s.shape, generator=generator)).sum()
    total.backward()
    grads = [leaf.grad, *(s.grad for s in state)]
    grads += [p.grad.clone() for p in neuron.parameters() if p.grad is not None]
    return spikes, last, grads


def check(neuron, leaf, view=lambda z: z, time_steps=None):
    one_step = view(leaf)[0]
    generator = torch.Generator().manual_seed(2)
    state = tuple(
        s.detach() + 0.1 * torch.randn(s.shape, generator=generator)
        for s in neuron.init_state(one_step.real if one_step.is_complex() else one_step)
    )
    spikes, last, grads = run("fused", neuron, leaf, state, view, time_steps)
    expected, expected_last, expected_grads = run(
        "reference", neuron, leaf, state, view, time_steps
    )
    assert torch.equal(spikes, expected)
    for s, e in zip(last, expected_last, strict=True):
        assert torch.equal(s, e)
    # A parameter's gradient is a sum whose terms may cancel: they are about as large as these.
    terms = expected_grads[0].norm()
    for number, (g, e) in enumerate(zip(grads, expected_grads, strict=True)):
        assert g.dtype is torch.float32
        largest = e.abs().max() if number <= len(state) else max(e.abs().max(), terms)
        assert (g - e).abs().max() <= 1e-5 * largest + 1e-30
    return spikes


def build(neuron_type, channels=None, learnable=(), seed=0, **settings):
    parameters = draw_parameters(neuron_type, seed, channels)
    return neuron_type(**parameters, learnable=learnable, **settings)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("surrogate", ["exponential", "fast_sigmoid", "arctan"])
@pytest.mark.parametrize("reset", ["zero", "subtract", "none"])
def test_every_reset_surrogate_and_shape(reset, surrogate, shape):
    settings = {"reset": reset, "surrogate": surrogate, "tau_grad": 0.7, "scale_grad": 1.3}
    spikes = check(CUBA(0.9, 0.6, 0.2, v_init=0.1, **settings), torch.randn(shape) + 0.3)
    assert spikes.numel() < 50 or 0 < spikes.mean() < 1


@pytest.mark.parametrize("current_decay", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("voltage_decay", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("detach_reset", [True, False])
@pytest.mark.parametrize("reset", ["zero", "subtract", "none"])
def test_every_decay(current_decay, voltage_decay, reset, detach_reset):
    names = ("threshold", "current_decay", "voltage_decay")
    neuron = CUBA(
        1.0, current_decay, voltage_decay, reset=reset, detach_reset=detach_reset, learnable=names
    )
    check(neuron, torch.randn(9, 3, 5))


@every_integrator
@pytest.mark.parametrize("channels", [None, 3])
@pytest.mark.parametrize(
    "shape", [(7, 4, 3), (1, 4, 3), (4, 2, 3, 5, 3), (2, 3, 3, 17, WIDTH // 70)], ids=str
)
@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("detach_reset", [True, False])
def test_learnable_parameters(neuron_type, channels, shape, reset, detach_reset):
    names = PARAMETERS[neuron_type]
    neuron = build(neuron_type, channels, names, reset=reset, detach_reset=detach_reset)
    check(neuron, torch.randn(shape) + 0.3)


@every_integrator
def test_only_some_are_learnable_and_some_have_channels(neuron_type):
    for learnable in PARAMETERS[neuron_type]:
        values = draw_parameters(neuron_type, 3)
        values[learnable] = draw_parameters(neuron_type, 4, 3)[learnable]
        neuron = neuron_type(**values, learnable=(learnable,))
        check(neuron, torch.randn(6, 4, 3, 2, 5) + 0.3)


def test_v_init_learns():
    for backend in ("fused", "reference"):
        neuron = LIF(1.0, 0.25, v_init=0.5, reset="none", learnable=("v_init",))
        with use_backend(backend):
            _, (v,) = neuron(torch.zeros(3, 4, 5), return_state=True)
        v.sum().backward()
        assert neuron.v_init.grad.item() == pytest.approx(4 * 5 * 0.75**3)


@given(seeds, st.integers(1, 40), st.sampled_from([(3,), (2, 3), (2, 3, 2, 2)]), options)
@every_integrator
def test_random_cases(neuron_type, seed, time_steps, shape, settings):
    channels = 3 if len(shape) > 1 and seed % 2 else None
    neuron = build(neuron_type, channels, PARAMETERS[neuron_type], seed, **settings)
    check(neuron, draw_input(seed, (time_steps, *shape)))


@given(seeds, st.integers(1, 20), options)
@every_integrator
def test_ties_at_the_threshold(neuron_type, seed, time_steps, settings):
    parameters = draw_parameters(neuron_type, seed, grid=True)
    neuron = neuron_type(**parameters, **settings)
    z = draw_input(seed, (time_steps, 20), grid=True)
    with use_backend("reference"):
        expected = neuron(z)
    assert torch.equal(neuron(z), expected)


@every_integrator
@pytest.mark.parametrize("shape", [(1, 7), (1, 4, 3), (1, 2, 3, 4, 5), (1, 1, WIDTH + 3)], ids=str)
@pytest.mark.parametrize("time_steps", [1, 2, 9])
def test_held_input(neuron_type, shape, time_steps):
    check(
        build(neuron_type, None, PARAMETERS[neuron_type]), torch.rand(shape), time_steps=time_steps
    )


@every_integrator
@pytest.mark.parametrize(
    ("shape", "view"),
    [
        ((3, 4, 6), lambda z: z.transpose(0, 1)),
        ((3, 4, 6), lambda z: z.transpose(1, 2)),
        ((4, 3, 12), lambda z: z[..., ::2]),
        ((8, 3, 6), lambda z: z[::2]),
        ((3, 6), lambda z: z.expand(5, 3, 6)),
        ((4, 2, 5, 6, 3), lambda z: z.permute(0, 1, 4, 2, 3)),  # channels last
        ((4, 3, 1), lambda z: z.expand(4, 3, 6)),
    ],
    ids=["N and T", "N and C", "C strided", "T strided", "held", "channels last", "C repeated"],
)
def test_strides(neuron_type, shape, view):
    channels = view(torch.zeros(shape)).shape[2]
    neuron = build(neuron_type, channels, PARAMETERS[neuron_type])
    check(neuron, torch.randn(shape) + 0.3, view)


@pytest.mark.parametrize("layout", ["transposed", "expanded"])
def test_strides_of_states_and_gradients(layout):
    neuron = CUBA(1.0, 0.5, 0.2)
    z = torch.randn(5, 4, 4)
    state = torch.randn(4, 4)
    state = state.T if layout == "transposed" else state[:1].expand(4, 4)
    outs = []
    for backend in ("fused", "reference"):
        leaf = z.clone().requires_grad_()
        with use_backend(backend):
            spikes, (u, v) = neuron(leaf, (state, state), return_state=True)
        weight = torch.randn(4, 4, 5, generator=torch.Generator().manual_seed(1))
        (spikes.permute(1, 2, 0) * weight).sum().backward(retain_graph=True)
        (u.T.sum() + v.mean()).backward()  # gradients that are expanded
        outs.append((spikes, u, v, leaf.grad))
    for fused, reference in zip(*outs, strict=True):
        torch.testing.assert_close(fused, reference, rtol=1e-5, atol=1e-6)


def test_gradient_of_a_part():
    # Only the state is used, or only one step's spikes.
    for pick in (lambda s, state: state[1].sum(), lambda s, state: s[2].sum()):
        grads = []
        for backend in ("fused", "reference"):
            z = draw_input(0, (5, 4, 3)).requires_grad_()
            with use_backend(backend):
                pick(*CUBA(1.0, 0.5, 0.2)(z, return_state=True)).backward()
            grads.append(z.grad)
        torch.testing.assert_close(*grads)


def test_threads_change_nothing():
    # Two threads more than one, where there are two.
    neuron = build(CUBA, 5, PARAMETERS[CUBA])
    z = torch.randn(6, 3, 5, 31, WIDTH // 200)
    state = tuple(s.detach() for s in neuron.init_state(z[0]))
    before = torch.get_num_threads()
    outs = []
    try:
        for threads in (1, numba.config.NUMBA_NUM_THREADS):
            torch.set_num_threads(threads)
            spikes, last, grads = run("fused", neuron, z, state)
            outs.append((spikes, *last, *grads))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*outs, strict=True))


def test_double_backward_is_refused():
    z = torch.rand(4, 2, 3, requires_grad=True)
    weight = torch.rand(4, 2, 3, requires_grad=True)
    total = (LIF(1.0, 0.1)(z) * weight).sum()
    (grad,) = torch.autograd.grad(total, z, create_graph=True)
    with pytest.raises(SpikestrapError, match=r"no second derivative.*without create_graph"):
        grad.sum().backward()


@every_integrator
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiles_to_the_same(neuron_type, dtype, fresh_compiler):
    neuron = build(neuron_type, 3, PARAMETERS[neuron_type])
    compiled = torch.compile(neuron, fullgraph=True, backend="aot_eager")
    outs = []
    for call in (neuron, compiled):
        neuron.zero_grad()
        z = draw_input(0, (5, 4, 3)).to(dtype).requires_grad_()
        spikes, state = call(z, return_state=True)
        (spikes.sum() + state[-1].sum()).backward()
        outs.append((spikes, *state, z.grad, *(p.grad for p in neuron.parameters())))
    for eager, graph in zip(*outs, strict=True):
        assert torch.equal(eager, graph)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_compiles_with_inductor(fresh_compiler):
    neuron = build(CUBA, None, PARAMETERS[CUBA])
    compiled = torch.compile(neuron, fullgraph=True)
    outs = []
    for call in (neuron, compiled):
        neuron.zero_grad()
        z = draw_input(0, (5, 4, 3)).requires_grad_()
        spikes, state = call(2 * z, return_state=True)
        (spikes.sum() + state[-1].sum()).backward()
        outs.append((spikes, *state, z.grad, *(p.grad for p in neuron.parameters())))
    for eager, graph in zip(*outs, strict=True):
        torch.testing.assert_close(eager, graph)


def test_compiled_with_a_state_goes_on(fresh_compiler):
    neuron = IF(1.0, reset="subtract")
    compiled = torch.compile(neuron, fullgraph=True, backend="aot_eager")
    z = torch.rand(6, 4, 3)
    first, state = compiled(z[:3], return_state=True)
    assert torch.equal(torch.cat([first, compiled(z[3:], state)]), neuron(z))
