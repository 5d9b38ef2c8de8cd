import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.neuron.cases import (
    GRADED,
    INTEGRATORS,
    ZOO,
    draw_input,
    draw_parameters,
    every_neuron,
    is_compiled,
    learnable_names,
    make,
    options,
    run,
    seeds,
    settings_for,
)
from torch import nn

from spikestrap import SpikestrapError
from spikestrap.kernel import use_backend
from spikestrap.neuron import ALIF, RF, Neuron, Surrogate
from spikestrap.neuron import firing as firing_module
from spikestrap.neuron.surrogate import SURROGATES, _Spike

BACKENDS = pytest.mark.parametrize("backend", ["reference", "auto"])
HALVES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])


class Adaptive(Neuron):
    """A neuron of a user's own: its threshold rises with every spike."""

    def __init__(self):
        super().__init__()
        self.rise = nn.Parameter(torch.tensor(0.5))

    def init_state(self, z):
        return torch.zeros_like(z), torch.ones_like(z)

    def step(self, z, state):
        v, threshold = state
        spikes = firing_module.spike(v + z, threshold, SURROGATES["exponential"])
        return spikes, ((v + z) * (1 - spikes.detach()), threshold + self.rise * spikes)


NEURONS = pytest.mark.parametrize(
    "neuron",
    [*map(make, ZOO), Adaptive()],
    ids=lambda neuron: type(neuron).__name__,
)


@NEURONS
@pytest.mark.parametrize("shape", [(4, 3), (4, 2, 3), (1, 2, 3), (4, 2, 3, 5, 1)])
def test_spikes_are_shaped_like_the_input(neuron, shape):
    spikes = neuron(2 * torch.rand(shape))
    assert spikes.shape == shape
    assert type(neuron) in GRADED or set(spikes.unique().tolist()) <= {0.0, 1.0}


@NEURONS
def test_state_starts_afresh_at_every_forward(neuron):
    z = 2 * torch.rand(5, 4, 3)
    first = run(neuron, z)
    neuron(torch.rand(2, 7, 3))
    assert torch.equal(run(neuron, z), first)


@NEURONS
def test_held_input_is_the_repeated_one(neuron):
    z = torch.rand(1, 4, 3)
    repeated, state = run(neuron, z.repeat(6, 1, 1), return_state=True)
    held, state_held = run(neuron, z, time_steps=6, return_state=True)
    assert torch.equal(held, repeated)
    assert all(torch.equal(a, b) for a, b in zip(state, state_held, strict=True))
    assert torch.equal(run(neuron, z.expand(6, 4, 3)), repeated)  # a view with stride 0 over time


@NEURONS
def test_input_is_left_alone(neuron):
    z = torch.rand(5, 4, 3)
    before = z.clone()
    _, state = neuron(z, return_state=True)
    states = [s.clone() for s in state]
    neuron(z, state)
    assert torch.equal(z, before)
    assert all(torch.equal(a, b) for a, b in zip(state, states, strict=True))


@NEURONS
@pytest.mark.parametrize(
    ("z", "time_steps", "message"),
    [
        (torch.rand(4), None, r"expected z \(T, N, \.\.\.\) with T >= 1, got shape \(4,\)"),
        (torch.rand(0, 2, 3), None, r"with T >= 1, got shape \(0, 2, 3\)"),
        (torch.ones(4, 2, 3, dtype=torch.int64), None, "floating-point .*z, got torch.int64"),
        (torch.rand(4, 2, 3), 5, r"time_steps=5 goes with .*\(1, N, \.\.\.\).*\(4, 2, 3\)"),
        (torch.rand(1, 2, 3), 0, "time_steps=0 .* must be >= 1"),
        (torch.rand(1, 2, 3), -1, "time_steps=-1 .* must be >= 1"),
    ],
)
def test_refuses_and_says_what_came(neuron, z, time_steps, message):
    with pytest.raises(SpikestrapError, match=f"{type(neuron).__name__}: .*{message}"):
        neuron(z, time_steps=time_steps)


@NEURONS
@pytest.mark.parametrize("shape", [(4, 0, 3), (4, 2, 0)])
def test_nothing_gives_nothing(neuron, shape):
    assert neuron(torch.rand(shape)).shape == shape


@BACKENDS
@every_neuron
@pytest.mark.parametrize("other", [(2, 3), (8, 3), (3, 4)])
def test_refuses_a_state_of_another_shape(neuron_type, backend, other):
    neuron = make(neuron_type)
    _, state = neuron(torch.rand(5, 4, 3), return_state=True)
    wrong = tuple(torch.zeros(other) for _ in state)
    with use_backend(backend), pytest.raises(SpikestrapError, match="state"):
        neuron(torch.rand(5, 4, 3), wrong)


@BACKENDS
@every_neuron
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_a_state_of_another_precision_is_taken_or_refused(neuron_type, backend, dtype):
    neuron, z = make(neuron_type), torch.rand(5, 4, 3)
    _, state = neuron(z, return_state=True)
    expected = run(neuron, z, tuple(s.to(dtype).float() for s in state))
    with use_backend(backend):
        try:
            spikes, last = run(neuron, z, tuple(s.to(dtype) for s in state), return_state=True)
        except SpikestrapError:
            return
    assert torch.equal(spikes, expected)
    assert all(s.dtype is torch.float32 for s in last)


@every_neuron
def test_refuses_a_state_of_another_neuron(neuron_type):
    neuron, z = make(neuron_type), torch.rand(5, 4, 3)
    _, state = neuron(z, return_state=True)
    for wrong in ((), (*state, state[0])):
        with pytest.raises(SpikestrapError, match="state"):
            neuron(z, wrong)


@given(seeds, st.lists(st.integers(1, 5), min_size=2, max_size=4), st.booleans(), options)
@every_neuron
@BACKENDS
def test_in_chunks_is_as_whole(neuron_type, backend, seed, chunks, per_channel, settings):
    if is_compiled(neuron_type, backend):
        settings, per_channel = {}, False
    parameters = draw_parameters(neuron_type, seed, 3 if per_channel else None)
    settings = settings_for(neuron_type, settings)
    neuron = neuron_type(**parameters, **settings, learnable=learnable_names(neuron_type))
    total = sum(chunks)
    weights = draw_input(seed + 1, (total, 2, 3))
    by_state = [draw_input(seed + 2, (2, 3)) for _ in neuron.init_state(torch.zeros(2, 3))]

    def in_parts(lengths):
        torch.manual_seed(seed)
        neuron.zero_grad()
        z = draw_input(seed, (total, 2, 3)).requires_grad_()
        spikes, state = [], None
        with use_backend(backend):
            for part in z.split(lengths):
                out, state = neuron(part, state, return_state=True)
                spikes.append(out)
        spikes = torch.cat(spikes)
        ends = sum((w * s).sum() for w, s in zip(by_state, state, strict=True))
        ((weights * spikes).sum() + ends).backward()
        return spikes, state, z.grad, [p.grad for p in neuron.parameters()]

    spikes, state, grad, grads = in_parts([total])
    spikes_2, state_2, grad_2, grads_2 = in_parts(chunks)
    assert torch.equal(spikes, spikes_2)
    assert all(torch.equal(a, b) for a, b in zip(state, state_2, strict=True))
    assert torch.equal(grad, grad_2)
    # A parameter's gradient is a sum over everything, in another order.
    for a, b in zip(grads, grads_2, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * total)


@every_neuron
@HALVES
@pytest.mark.parametrize("held", [False, True])
def test_half_precision_has_a_float32_state(neuron_type, dtype, held):
    neuron = make(neuron_type)
    z, time_steps = torch.rand(1 if held else 300, 4, 3).to(dtype), 300
    spikes, state = run(neuron, z, time_steps=time_steps, return_state=True)
    assert spikes.dtype is dtype
    assert all(s.dtype is torch.float32 for s in state)
    expected, expected_state = run(neuron, z.float(), time_steps=time_steps, return_state=True)
    assert torch.equal(spikes, expected.to(dtype))
    assert all(torch.equal(a, b) for a, b in zip(state, expected_state, strict=True))
    with use_backend("reference"):
        assert torch.equal(run(neuron, z, time_steps=time_steps), spikes)


@every_neuron
@HALVES
def test_half_precision_has_gradients(neuron_type, dtype):
    neuron = make(neuron_type)
    z = torch.rand(5, 4, 3).to(dtype).requires_grad_()
    run(neuron, z).sum().backward()
    exact = z.detach().float().requires_grad_()
    run(neuron, exact).sum().backward()
    assert z.grad.dtype is dtype
    torch.testing.assert_close(z.grad, exact.grad.to(dtype))


@NEURONS
@pytest.mark.parametrize("backend", ["reference", "auto"])
def test_autocast_leaves_the_dynamics_alone(neuron, backend):
    z = torch.rand(50, 4, 3)
    expected, expected_state = run(neuron, z, return_state=True)
    with use_backend(backend), torch.autocast("cpu", torch.bfloat16):
        spikes, state = run(neuron, z, return_state=True)
    assert torch.equal(spikes, expected)
    assert all(torch.equal(a, b) for a, b in zip(state, expected_state, strict=True))


def test_autocast_leaves_a_neuron_of_ones_own_alone():
    class Recurrent(Adaptive):
        def step(self, z, state):
            # What autocast would take to half precision.
            return super().step(z + state[0] @ mixing, state)

    mixing, z, neuron = 0.3 * torch.randn(3, 3), torch.rand(50, 4, 3), Recurrent()
    expected, expected_state = neuron(z, return_state=True)
    with torch.autocast("cpu", torch.bfloat16):
        spikes, state = neuron(z, return_state=True)
    assert torch.equal(spikes, expected)
    assert all(torch.equal(a, b) for a, b in zip(state, expected_state, strict=True))


@every_neuron
def test_float64_is_computed_in_float64(neuron_type):
    neuron = make(neuron_type).double()
    z = torch.rand(5, 4, 3, dtype=torch.float64)
    spikes, state = run(neuron, z, return_state=True)
    assert spikes.dtype is torch.float64
    assert all(s.dtype is torch.float64 for s in state)
    with use_backend("reference"):
        assert torch.equal(run(neuron, z), spikes)


@NEURONS
def test_copies_and_pickles_run_alike(neuron):
    z = 2 * torch.rand(5, 4, 3)
    for twin in (copy.deepcopy(neuron), pickle.loads(pickle.dumps(neuron))):
        assert torch.equal(run(twin, z), run(neuron, z))


@every_neuron
def test_state_dict_carries_the_parameters(neuron_type):
    values = draw_parameters(neuron_type, 1, 3)
    neuron, fresh = neuron_type(**values), neuron_type(**draw_parameters(neuron_type, 2, 3))
    fresh.load_state_dict(neuron.state_dict())
    z = 2 * torch.rand(5, 4, 3)
    assert torch.equal(run(fresh, z), run(neuron, z))


@pytest.mark.parametrize("neuron_type", [*INTEGRATORS, ALIF], ids=lambda kind: kind.__name__)
@BACKENDS
def test_a_step_of_ones_own_is_the_one_that_runs(neuron_type, backend):
    class Deaf(neuron_type):
        def step(self, z, state, *extra):
            return super().step(torch.zeros_like(z), state, *extra)

    # Without a fused kernel for it, "fused" may refuse; what it must not do is hear.
    try:
        with use_backend(backend):
            spikes = run(make(Deaf), torch.full((5, 4, 3), 10.0))
    except SpikestrapError:
        return
    assert spikes.sum() == run(make(neuron_type), torch.zeros(5, 4, 3)).sum()


def test_own_neuron_learns():
    neuron = Adaptive()
    spikes = neuron(torch.full((3, 1, 1), 1.2))
    # v 1.2 fires; 1.2 is not over 1.5; 2.4 is.
    assert spikes.flatten().tolist() == [1, 0, 1]
    spikes.sum().backward()
    assert neuron.rise.grad < 0


@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("reset", ["zero", "subtract", "none"])
@pytest.mark.parametrize(
    "neuron_type", [kind for kind in ZOO if kind not in GRADED], ids=lambda kind: kind.__name__
)
def test_backward_is_the_derivative_of_a_smoothed_forward(
    neuron_type, reset, surrogate, monkeypatch
):
    """With the spike's integral in its place, the surrogate gradient is the true one."""
    tau, scale = 0.8, 1.5

    class Smooth(_Spike):
        @staticmethod
        def forward(over, tau, surrogate, scale):
            return scale / 2 * surrogate.integral(over / tau)

    def smooth_spike(v, threshold, surrogate: Surrogate, tau_grad, scale_grad):
        # The width of a surrogate counts as a constant, also where the threshold is learnt.
        return Smooth.apply(v - threshold, torch.full_like(threshold, tau), surrogate, scale_grad)

    monkeypatch.setattr(firing_module, "spike", smooth_spike)
    names = learnable_names(neuron_type)
    settings = {"reset": reset, "surrogate": surrogate, "scale_grad": scale, "detach_reset": False}
    neuron = make(neuron_type, **settings, learnable=names).double()

    def total(z, *values):
        torch.manual_seed(0)
        spikes, state = torch.func.functional_call(
            neuron, dict(zip(names, values, strict=True)), (z,), {"return_state": True}
        )
        return spikes, *state

    z = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
    values = [
        (
            torch.tensor([0.31, 0.45, 0.62], dtype=torch.float64) + 5 * (name == "period")
        ).requires_grad_()
        for name in names
    ]
    assert torch.autograd.gradcheck(total, (z, *values), eps=1e-7, atol=1e-4, fast_mode=True)


@pytest.mark.parametrize("kind", [ALIF, RF], ids=lambda kind: kind.__name__)
def test_checkpoints_change_nothing(kind):
    z, found = torch.randn(9, 4, 3), []
    for checkpoint_steps in (None, 4):
        neuron, leaf = make(kind, learnable=learnable_names(kind)), z.clone().requires_grad_()
        neuron.checkpoint_steps = checkpoint_steps
        with use_backend("reference"):
            spikes = neuron(leaf)
        (spikes * z).sum().backward()
        found.append([spikes, leaf.grad, *(p.grad for p in neuron.parameters())])
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    for plain, ours in zip(*found, strict=True):  # a parameter's is a sum over time
        torch.testing.assert_close(ours, plain)


@pytest.mark.parametrize("value", [0, -1, 2.0, "4"])
def test_checkpoint_steps_are_whole(value):
    neuron = make(ALIF)
    neuron.checkpoint_steps = value
    with pytest.raises(SpikestrapError, match=r"ALIF: checkpoint_steps must be None or a whole"):
        neuron(torch.rand(4, 2, 3))


class WithExtra(Neuron):
    """Fires where its input and `given` together are positive."""

    def __init__(self, given):
        super().__init__()
        self.given = given

    def init_state(self, z):
        return ()

    def extra(self, z, time_steps):
        return self.given

    def step(self, z, state, more):
        return (z + more > 0).to(z.dtype), state


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_extras_of_other_steps_are_refused(backend):
    z = torch.rand(4, 2, 3)
    with use_backend(backend):
        for steps in (1, 4):
            assert WithExtra((torch.ones(steps, 2, 3),))(z).shape == z.shape
        for given, got in (
            ((torch.ones(3, 2, 3),), r"\[\(3, 2, 3\)\]"),
            ((torch.ones(5, 2, 3),), r"\[\(5, 2, 3\)\]"),
            (torch.ones(4, 2, 3), "Tensor"),
        ):
            with pytest.raises(SpikestrapError, match=f"T = 4, or .* from `extra`, got {got}"):
                WithExtra(given)(z)


def test_what_a_step_must_return():
    class Returns(Neuron):
        def __init__(self, result):
            super().__init__()
            self.result = result

        def init_state(self, z):
            return (torch.zeros_like(z),)

        def step(self, z, state):
            return self.result(z, state[0] + z)

    z = torch.rand(4, 2, 3)
    by_tuple = Returns(lambda z, v: ((v > 1).to(z.dtype), (v,)))(z)
    for backend in ("auto", "reference"):  # a list does as well, on either
        with use_backend(backend):
            assert torch.equal(Returns(lambda z, v: ((v > 1).to(z.dtype), [v]))(z), by_tuple)
    for result, message in (
        (lambda z, v: ((v > 1).to(z.dtype), v), "a tuple of 1 tensors .* got Tensor"),
        (lambda z, v: ((v > 1).to(z.dtype), ()), "a tuple of 1 tensors .* got a tuple of 0"),
        (lambda z, v: ((v > 1).to(z.dtype)[..., :1], (v,)), r"spikes shaped like z, \(2, 3\)"),
    ):
        with pytest.raises(SpikestrapError, match=message):
            Returns(result)(z)
