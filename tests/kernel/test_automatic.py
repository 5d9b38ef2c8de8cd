"""Kernels compiled from a step against the step itself, scanned in torch."""

import shutil

import pytest
import torch
import torch.nn.functional as F
from functorch.compile import aot_module_simplified
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernel.test_cuba import check
from tests.neuron.cases import draw_input, seeds
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import checkpoint

from spikestrap import SpikestrapError, SpikestrapWarning
from spikestrap.kernel import automatic, explain, use_backend
from spikestrap.neuron import LIF, Firing, Neuron
from spikestrap.neuron.parameter import ANY, DECAY, THRESHOLD, per_channel, register, value_of

SHAPES = [(1, 3), (4, 7), (5, 3, 1), (6, 4, 3), (3, 2, 3, 4, 5), (2, 3, 3, 31, 50), (300, 2, 3)]


class Own(Neuron):
    """A base for the neurons here: parameters by name, and how they fire."""

    bounds = {}  # noqa: RUF012
    states = 1

    def __init__(self, learnable=(), reset="zero", surrogate="exponential", detach=True, **values):
        super().__init__()
        self.firing = Firing(reset, surrogate, 0.8, 1.2, detach)
        for name, bounds in {"threshold": THRESHOLD, **self.bounds}.items():
            register(self, name, values.get(name, 0.7), bounds, name in learnable)

    def init_state(self, z):
        return tuple(torch.zeros_like(z) for _ in range(self.states))

    def value(self, name, z):
        bounds = {"threshold": THRESHOLD, **self.bounds}[name]
        return per_channel(value_of(self, name, bounds).to(z.dtype), z)


class Leaky(Own):
    bounds = {"decay": DECAY}  # noqa: RUF012

    def step(self, z, state):
        (v,) = state
        spikes, v = self.firing(v * (1 - self.value("decay", z)) + z, self.value("threshold", z))
        return spikes, (v,)


class Quadratic(Own):
    bounds = {"gain": ANY}  # noqa: RUF012

    def step(self, z, state):
        (v,) = state
        v = v + self.value("gain", z) * v * (v - 0.5) + z
        spikes, v = self.firing(v.clamp(-3, 3), self.value("threshold", z))
        return spikes, (v,)


class Exponential(Own):
    def step(self, z, state):
        (v,) = state
        v = 0.9 * v + 0.2 * torch.exp((v - 1) / 0.4) + z
        spikes, v = self.firing(torch.minimum(v, torch.tensor(4.0)), self.value("threshold", z))
        return spikes, (v,)


class Adaptive(Own):
    bounds = {"rise": ANY, "decay": DECAY}  # noqa: RUF012
    states = 2

    def step(self, z, state):
        v, a = state
        spikes, v = self.firing(0.8 * v + z, self.value("threshold", z) + a)
        return spikes, (v, a * (1 - self.value("decay", z)) + self.value("rise", z) * spikes)


class Resonator(Own):
    bounds = {"frequency": ANY, "decay": DECAY}  # noqa: RUF012
    states = 2

    def step(self, z, state):
        x, y = state
        frequency, keep = self.value("frequency", z), 1 - self.value("decay", z)
        c, s = keep * torch.cos(frequency), keep * torch.sin(frequency)
        x, y = c * x - s * y + z, s * x + c * y
        spikes, y = self.firing(y, self.value("threshold", z))
        return spikes, (x, y)


class Noisy(Own):
    def extra(self, z, time_steps):
        generator = torch.Generator().manual_seed(5)
        return (0.3 * torch.randn((time_steps, *z.shape[1:]), generator=generator),)

    def step(self, z, state, noise):
        (v,) = state
        spikes, v = self.firing(0.9 * v + z + noise, self.value("threshold", z))
        return spikes, (v,)


class Refractory(Own):
    states = 2

    def step(self, z, state):
        v, left = state
        silent = left > 0
        v = torch.where(silent, torch.zeros_like(v), 0.9 * v + z)
        spikes, v = self.firing(v, self.value("threshold", z))
        return spikes, (v, torch.where(spikes > 0, 2.0, F.relu(left - 1)))


class Many(Own):
    """Every operation that is known, none of them out of its range."""

    states = 2

    def step(self, z, state):
        v, w = state
        a = torch.sigmoid(z) + torch.tanh(v) - torch.sin(w) * torch.cos(z)
        b = (z.abs() + 1).log() + torch.sqrt(z * z + 1) + (v**2 + 1) ** -0.5 + 1 / (1 + w.square())
        c = torch.maximum(a, b).clamp(max=2) + torch.minimum(v, w).clamp_min(-2) - z.floor()
        even = (z.round() == 0) | ~(v >= w) & (a != b) ^ (w <= 1)
        c = torch.where(even, c, -a.detach()) + (v > 0) * torch.sign(z) + z.ceil()
        d = (even & (a < 1)).float() + (2 - b) / 3 + 0.7 / (2 + a) + z.expand_as(v).clone()
        spikes, c = self.firing(c / 4, self.value("threshold", z))
        drift = torch.ones_like(w) - torch.full_like(w, 1.3, device=z.device)
        return spikes, (c, 0.5 * w + d / 8 + drift)


EXACT = (Leaky, Quadratic, Adaptive, Resonator, Noisy, Refractory)
every_exact = pytest.mark.parametrize("kind", EXACT, ids=lambda kind: kind.__name__)


def names(kind):
    return ("threshold", *kind.bounds)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@every_exact
def test_every_shape(kind, shape):
    neuron = kind(names(kind))
    assert explain(neuron, torch.zeros(shape)).backend == "compiled"
    check(neuron, torch.randn(shape) + 0.3)


@pytest.mark.parametrize(
    ("reset", "surrogate", "detach"),
    [
        ("zero", "exponential", False),
        ("subtract", "fast_sigmoid", True),
        ("subtract", "arctan", False),
        ("none", "exponential", True),
    ],
)
def test_every_reset_and_surrogate(reset, surrogate, detach):
    check(Leaky(names(Leaky), reset, surrogate, detach), torch.randn(6, 4, 3) + 0.3)


@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_a_threshold_that_is_a_number(reset):
    class Plain(Own):
        def step(self, z, state):
            spikes, v = self.firing(0.9 * state[0] + z, 0.7)
            return spikes, (v,)

    neuron, z = Plain(reset=reset), torch.randn(6, 4, 3) + 0.3
    assert explain(neuron, z).backend == "compiled"
    check(neuron, z)
    twin = LIF(0.7, 0.1, reset=reset, tau_grad=0.8, scale_grad=1.2)
    assert torch.equal(neuron(z), twin(z))


@given(seeds, st.integers(1, 30), st.booleans())
@settings(max_examples=10)
@every_exact
def test_random_parameters(kind, seed, time_steps, in_channels):
    generator = torch.Generator().manual_seed(seed)
    values = {
        name: torch.rand((3,) if in_channels else (), generator=generator)
        + 1e-3 * (name != "decay")
        for name in names(kind)
    }
    neuron = kind(names(kind), **values)
    check(neuron, torch.randn((time_steps, 2, 3), generator=generator) + 0.3)


@pytest.mark.parametrize("decay", [0.0, 0.3, 1.0])
def test_every_decay(decay):
    check(Leaky(names(Leaky), decay=decay), torch.randn(9, 3, 5))
    check(Adaptive(names(Adaptive), decay=decay), torch.randn(9, 3, 5))


@every_exact
@pytest.mark.parametrize(
    ("shape", "view"),
    [
        ((3, 4, 3), lambda z: z.transpose(0, 1)),
        ((4, 2, 6, 5, 3), lambda z: z[:, :, ::2].permute(0, 1, 2, 4, 3)),
        ((3, 6), lambda z: z.expand(5, 3, 6)),
    ],
    ids=["N and T", "C and images", "held"],
)
def test_strides(kind, shape, view):
    check(kind(names(kind)), torch.randn(shape) + 0.3, view)


@every_exact
@pytest.mark.parametrize("time_steps", [1, 7])
def test_held_input(kind, time_steps):
    check(kind(names(kind)), torch.rand(1, 4, 3), time_steps=time_steps)


@pytest.mark.parametrize("kind", [Exponential, Many], ids=lambda kind: kind.__name__)
def test_transcendental_functions_are_close(kind):
    neuron, z = kind(names(kind)), 2 * torch.randn(1, 50, 7, 3)
    outs = []
    for backend in ("fused", "reference"):
        leaf = z.clone().requires_grad_()
        generator = torch.Generator().manual_seed(0)
        start = tuple(torch.randn(z.shape[1:], generator=generator) for _ in range(kind.states))
        with use_backend(backend):
            spikes, last = neuron(leaf, start, return_state=True)
        total = spikes.sum() + sum((s * s).sum() for s in last)
        grads = torch.autograd.grad(total, (leaf, *neuron.parameters()))
        outs.append((spikes, *last, *grads))
    for fused, reference in zip(*outs, strict=True):
        torch.testing.assert_close(fused, reference, rtol=1e-5, atol=1e-5)


def test_gradients_below_the_normal_floats_do_not_cost_the_kernel(monkeypatch):
    monkeypatch.setattr(automatic, "_checked", {})
    neuron = LIF(1.0, 0.1, learnable=("threshold", "voltage_decay"))
    for size in (100.0, 150.0, 200.0, 250.0):
        for seed in range(6):
            automatic._checked.clear()
            generator = torch.Generator().manual_seed(seed)
            z = size * torch.rand(1, 1, 1, generator=generator)
            assert explain(neuron, z).backend == "compiled"


def test_square_roots_which_torch_does_not_round_as_ieee_754():
    class Root(Own):
        def step(self, z, state):
            (v,) = state
            spikes, v = self.firing(torch.sqrt(v * v + z * z + 1.3), self.value("threshold", z))
            return spikes, (v,)

    assert explain(Root(), torch.randn(8, 4, 3)).backend == "compiled"


def test_extras_may_have_gradients():
    class Gated(Leaky):
        def __init__(self, gate):
            super().__init__()
            self.gate = gate

        def extra(self, z, time_steps):
            return (self.gate,)

        def step(self, z, state, gate):
            return super().step(z * gate, state)

    z, grads = torch.rand(5, 4, 3), []
    for gate in (torch.rand(5, 4, 3), torch.rand(1, 4, 3)):
        for backend in ("fused", "reference"):
            leaf = gate.clone().requires_grad_()
            with use_backend(backend):
                Gated(leaf)(z).square().sum().backward()
            grads.append(leaf.grad)
    torch.testing.assert_close(grads[0], grads[1])
    torch.testing.assert_close(grads[2], grads[3])


def refuse(step, reason, **attributes):
    kind = type("Odd", (Own,), {"step": step, **attributes})
    neuron, z = kind(), torch.rand(4, 2, 3)
    assert explain(neuron, z).backend == "reference"
    with use_backend("reference"):
        expected = neuron(z)
    assert torch.equal(neuron(z), expected)
    with use_backend("fused"), pytest.raises(SpikestrapError, match=f"Odd: no fused .*{reason}"):
        neuron(z)


class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, g):
        return 3 * g


def test_what_cannot_be_traced_runs_on_the_reference_and_is_named():
    refuse(lambda self, z, state: (z.cumsum(0), state), "cumsum")
    refuse(lambda self, z, state: (z * z.mean(), state), "mean")
    refuse(lambda self, z, state: (z.add(z, alpha=2), state), "add with these arguments")
    refuse(lambda self, z, state: (z.mul(other=2), state), "mul with these arguments")
    refuse(lambda self, z, state: (F.relu(z, inplace=True), state), "relu with these arguments")
    refuse(lambda self, z, state: (torch.round(z, decimals=1), state), "round with these arguments")
    refuse(lambda self, z, state: (z.long() * 1.0, state), "long")
    refuse(lambda self, z, state: (z[:, :1] + z, state), "__getitem__")
    refuse(lambda self, z, state: (z * torch.ones(2, 1), state), r"shape \(2, 1\)")
    refuse(lambda self, z, state: (Twice.apply(z), state), "Twice, an autograd.Function")
    refuse(lambda self, z, state: (z, (state[0].add_(z),)), "add_, which works in place")
    refuse(lambda self, z, state: (z, state), r"state of shape \(\)", init_state=scalar_state)


def scalar_state(self, z):
    return (torch.zeros(()),)


def test_a_branch_on_values_is_seen():
    def step(self, z, state):
        (v,) = state
        return (z if v.sum() > 0 else -z), (v + z,)

    refuse(step, "sum")

    def one(self, z, state):
        (v,) = state
        return (z if torch.equal(v, z) else -z), (v + z,)

    refuse(one, "equal")


def test_a_branch_on_a_single_value_is_seen():
    class Branching(Own):
        def step(self, z, state):
            (v,) = state
            return (z if v > 0 else -z), (v + z,)

    z = torch.rand(4, 1, 1)
    assert explain(Branching(), z).reason == "a Python branch on the values of a tensor"
    with use_backend("reference"):
        expected = Branching()(z)
    assert torch.equal(Branching()(z), expected)


def test_noise_drawn_in_the_step_is_seen():
    refuse_random = type(
        "Odd", (Own,), {"step": lambda self, z, state: (z + torch.rand_like(z), state)}
    )
    reason = explain(refuse_random(), torch.rand(4, 2, 3)).reason
    assert reason == "rand_like, which is random: draw noise in `extra`"


def test_a_first_state_may_be_drawn():
    class Anywhere(Leaky):
        def init_state(self, z):
            return (torch.rand_like(z),)

    # Decay and threshold of its own: no other test has had this kernel checked.
    neuron, z, found = Anywhere(decay=0.3125, threshold=0.8125), torch.rand(6, 4, 3), []
    for backend in ("fused", "reference"):
        torch.manual_seed(0)
        with use_backend(backend):
            found.append((neuron(z), torch.rand(1)))  # a check draws nothing from the stream
    (spikes, after), (expected, expected_after) = found
    assert torch.equal(spikes, expected)
    assert after == expected_after


def test_a_step_that_counts_is_left_alone():
    class Counting(Leaky):
        count = 0

        def step(self, z, state):
            self.count += 1
            return super().step(z * self.count, state)

    neuron, z = Counting(), torch.rand(4, 2, 3)
    assert explain(neuron, z).reason == "a step that sets attributes of its neuron"
    neuron(z)
    assert neuron.count == 4


def test_arithmetic_outside_torch_is_found_by_comparison():
    outside = torch.jit.trace(lambda x: x * 2, torch.ones(2))

    class Outside(Own):
        def step(self, z, state):
            return z + outside(z), state

    neuron, z = Outside(), torch.rand(4, 2, 3)
    with pytest.warns(SpikestrapWarning, match="Outside: the kernel .* other spikes or states"):
        spikes = neuron(z)
    torch.testing.assert_close(spikes, 3 * z)
    with use_backend("fused"), pytest.raises(SpikestrapError, match="gives other spikes"):
        neuron(z)


def test_gradients_that_are_rounding_alone_are_not_laid_to_other_arithmetic():
    class Signed(Own):
        """On z / |z|, whose derivative is 0."""

        def step(self, z, state):
            spikes, v = self.firing(0.9 * state[0] + z / (z.abs() + 1e-8), torch.ones(()))
            return spikes, (v,)

    z = torch.randn(9, 4, 3, requires_grad=True)
    with pytest.warns(SpikestrapWarning, match="other gradients .* nearly 0, rounding alone"):
        assert explain(Signed(), z).reason == "a kernel that gives other gradients"
    assert explain(Signed(), z.detach()).backend == "compiled"


class BySize(Own):
    """Its threshold goes by how many neurons there are."""

    def step(self, z, state):
        threshold = torch.tensor(1.0 + z.shape[1:].numel() / 100)
        spikes, v = self.firing(state[0] + z, threshold)
        return spikes, (v,)


@pytest.mark.parametrize("before", [(6, 4, 3), (6, 1, 3, 1, 1), (6, 4, 3, 1, 1)])
def test_what_was_right_on_another_size_is_tried_anew(before, monkeypatch):
    monkeypatch.setattr(automatic, "_checked", {})
    neuron = BySize()
    neuron(torch.rand(before))
    z = 2 * torch.rand(6, 4, 3, 5, 5)
    with pytest.warns(SpikestrapWarning, match="other spikes or states"):
        spikes = neuron(z)
    with use_backend("reference"):
        assert torch.equal(spikes, neuron(z))


def test_what_a_step_reads_may_change():
    neuron, z = Leaky(threshold=0.5, decay=0.5), torch.rand(6, 2, 3)
    for change in (
        lambda: None,
        lambda: neuron.decay.fill_(0.1),
        lambda: setattr(neuron, "firing", Firing("subtract")),
        lambda: setattr(neuron, "decay", torch.tensor([0.1, 0.2, 0.3])),
    ):
        change()
        spikes = neuron(z)
        with use_backend("reference"):
            assert torch.equal(neuron(z), spikes)


def test_without_gradients():
    neuron, z = Leaky(("decay",)), torch.rand(6, 2, 3)
    with torch.no_grad():
        spikes = neuron(z)
    assert not spikes.requires_grad
    assert torch.equal(neuron(z), spikes)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize(
    "how",
    [
        lambda run, z: make_fx(run)(z),
        lambda run, z: torch.jit.trace(run, (z,), check_trace=False),
        lambda run, z: torch.func.functionalize(run),
    ],
    ids=["make_fx", "jit", "functionalize"],
)
def test_what_traces_or_transforms_sees_the_kernel(how):
    neuron = LIF(threshold=0.5, voltage_decay=0.1)
    neuron(torch.rand(4, 2, 3))
    other = torch.rand(4, 2, 3)
    assert how(lambda z: neuron(z), torch.rand(4, 2, 3))(other).equal(neuron(other))


def test_tensors_whose_values_are_not_in_memory():
    neuron = LIF(threshold=0.5, voltage_decay=0.1)
    z = torch.rand(4, 2, 3)
    negated = torch._neg_view(-z).requires_grad_()
    spikes = neuron(negated)
    assert spikes.equal(neuron(z))
    (grad,) = torch.autograd.grad(spikes, negated, torch._neg_view(-torch.ones_like(z)))
    leaf = z.clone().requires_grad_()
    (expected,) = torch.autograd.grad(neuron(leaf), leaf, torch.ones_like(z))
    assert grad.equal(expected)
    (nothing,) = torch.autograd.grad(neuron(leaf), leaf, torch._efficientzerotensor(z.shape))
    assert not nothing.any()


def test_gradients_of_the_first_state_alone():
    neuron = LIF(threshold=0.5, voltage_decay=0.1)
    z, grad = torch.rand(4, 2, 70), torch.rand(4, 2, 70)
    found = []
    for backend in ("fused", "reference"):
        v = torch.full((2, 70), 0.1, requires_grad=True)
        with use_backend(backend):
            found.append(torch.autograd.grad(neuron(z, (v,)), v, grad)[0])
    torch.testing.assert_close(*found)


def test_double_backward_is_refused():
    z = torch.rand(4, 2, 3, requires_grad=True)
    total = (Leaky()(z) * torch.rand(4, 2, 3, requires_grad=True)).sum()
    (grad,) = torch.autograd.grad(total, z, create_graph=True)
    with pytest.raises(SpikestrapError, match="no second derivative"):
        grad.sum().backward()


@pytest.mark.parametrize("shape", [(4, 0, 3), (4, 2, 0)])
def test_nothing_gives_nothing(shape):
    z = torch.rand(shape, requires_grad=True)
    with use_backend("fused"):
        spikes = Leaky(("decay",))(z)
    assert spikes.shape == shape
    spikes.sum().backward()
    assert z.grad.shape == shape


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    neuron, z = Adaptive(), torch.rand(5, 2, 3).to(dtype)
    with use_backend("fused"):
        spikes, state = neuron(z, return_state=True)
    assert spikes.dtype is dtype
    assert all(s.dtype is torch.float32 for s in state)
    assert torch.equal(spikes.float(), neuron(z.float()))


def test_a_learnable_start_learns():
    class Started(Leaky):
        def __init__(self):
            super().__init__(decay=0.25, reset="none")
            self.start = nn.Parameter(torch.tensor(0.5))

        def init_state(self, z):
            return (self.start.expand_as(z),)

    neuron = Started()
    with use_backend("fused"):
        _, (v,) = neuron(torch.zeros(3, 4, 5), return_state=True)
    v.sum().backward()
    assert neuron.start.grad.item() == pytest.approx(4 * 5 * 0.75**3)


def outcome(call, neuron, dtype=torch.float32):
    neuron.zero_grad()
    z = draw_input(0, (5, 4, 3)).to(dtype).requires_grad_()
    spikes, state = call(2 * z, return_state=True)
    (spikes.sum() + state[-1].sum()).backward()
    return spikes, *state, z.grad, *(p.grad for p in neuron.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", [Leaky, Resonator], ids=lambda kind: kind.__name__)
def test_compiles_to_the_same(kind, dtype, fresh_compiler):
    neuron = kind(names(kind), **{name: torch.rand(3) for name in kind.bounds})
    compiled = torch.compile(neuron, fullgraph=True, backend="aot_eager")
    with use_backend("fused"):
        eager, graph = (outcome(call, neuron, dtype) for call in (neuron, compiled))
    assert all(torch.equal(a, b) for a, b in zip(eager, graph, strict=True))


def test_compiles_to_one_operator(fresh_compiler):
    operators = []

    def backend(graph, example_inputs):
        return aot_module_simplified(graph, example_inputs, look)

    def look(graph, example_inputs):
        operators.extend(str(node.target) for node in graph.graph.nodes)
        return graph

    neuron = Resonator(names(Resonator))
    torch.compile(neuron, fullgraph=True, backend=backend)(torch.rand(5, 4, 3)).sum().backward()
    assert operators.count("spikestrap.scan_compiled.default") == 1
    assert operators.count("spikestrap.scan_compiled_backward.default") == 1
    assert not any("where" in name or "gt" in name for name in operators)


def test_compiled_anew_where_the_step_reads_another_value(fresh_compiler):
    neuron, z = Leaky(threshold=0.5, decay=0.5), torch.rand(6, 2, 3)
    compiled = torch.compile(neuron, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(z), neuron(z))
    neuron.firing = Firing("subtract")
    assert torch.equal(compiled(z), neuron(z))
    neuron.decay.fill_(0.1)
    assert torch.equal(compiled(z), neuron(z))
    twin = Leaky(threshold=0.2, decay=0.1)
    assert torch.equal(torch.compile(twin, fullgraph=True, backend="aot_eager")(z), twin(z))


def test_compiles_what_cannot_be_traced_and_goes_on_from_a_state(fresh_compiler):
    odd = type("Odd", (Own,), {"step": lambda self, z, state: (z.flip(0) + state[0], (z,))})()
    z = torch.rand(6, 2, 3)
    compiled = torch.compile(odd, fullgraph=True, backend="aot_eager")
    first, state = compiled(z[:3], return_state=True)
    assert torch.equal(torch.cat([first, compiled(z[3:], state)]), odd(z))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_compiles_with_inductor(fresh_compiler):
    neuron = Resonator(names(Resonator))
    compiled = torch.compile(neuron, fullgraph=True)
    eager, graph = (outcome(call, neuron) for call in (neuron, compiled))
    for a, b in zip(eager, graph, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("learnable", [(), ("voltage_decay",)])
def test_a_users_checkpoint_does_not_see_what_is_done_once(learnable, monkeypatch):
    monkeypatch.setattr(automatic, "_checked", {})
    lif = LIF(1.0, 0.25, learnable=learnable)
    z, found = torch.rand(6, 4, 3, requires_grad=True), []
    for run in (lambda z: checkpoint(lif, z, use_reentrant=False), lif):
        run(z).square().sum().backward()
        found.append((z.grad, lif.voltage_decay.grad))
        z.grad = lif.voltage_decay.grad = None
    torch.testing.assert_close(*found)
