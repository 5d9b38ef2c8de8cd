"""Triton's kernels against the step: on a GPU, or on the CPU in Triton's interpreter.

Triton reads whether to interpret when it is imported, so `test_cuda` runs these in a process of
their own.
"""

import os

import pytest
import torch
from tests.kernel import test_automatic, test_compiled, test_zoo
from tests.neuron.cases import GRADED, RESONATORS, ZOO

from spikestrap import SpikestrapError, SpikestrapWarning
from spikestrap.kernel import automatic, backend, cuda, explain, use_backend
from spikestrap.kernel.reference import scan
from spikestrap.kernel.trace import trace
from spikestrap.neuron import ALIF, CUBA, LIF
from spikestrap.neuron.chip import ChipCUBA

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
# One neuron, some, and more than a block of them that are no multiple of one; channels.
SHAPES = [(2, 1, 1), (7, 4, 3), (1, 5), (3, 3, 3, 5, 7)]


@pytest.fixture(autouse=True)
def _on_triton(monkeypatch):
    monkeypatch.setattr(backend, "takes_triton", lambda z: True)


def outcome(name, neuron, z, state, time_steps=None, view=lambda z: z):
    """Spikes, states, and the gradients of everything that has one."""
    leaves = [x.clone().requires_grad_() for x in (z, *state)]
    torch.manual_seed(0)  # of a noisy neuron's noise
    with use_backend(name):
        spikes, last = neuron(
            view(leaves[0]), tuple(leaves[1:]), time_steps=time_steps, return_state=True
        )
    generator = torch.Generator().manual_seed(1)
    total = sum(
        (x.float() * torch.randn(x.shape, generator=generator).to(x.device)).sum()
        for x in (spikes, *last)
    )
    leaves += [p for p in neuron.parameters() if p.requires_grad]
    grads = torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)
    return spikes, last, grads


def check(neuron, z, time_steps=None, view=lambda z: z):
    """Spikes and states to the bit, gradients closely."""
    neuron, z = neuron.to(DEVICE), z.to(DEVICE)
    generator = torch.Generator().manual_seed(2)
    one = view(z)[0]
    start = neuron.init_state((one.real if one.is_complex() else one).float())
    state = [s.detach() + 0.1 * torch.randn(s.shape, generator=generator).to(s) for s in start]
    spikes, last, grads = outcome("fused", neuron, z, state, time_steps, view)
    expected, expected_last, expected_grads = outcome(
        "reference", neuron, z, state, time_steps, view
    )
    assert spikes.dtype == expected.dtype
    if DEVICE == "cpu" and spikes.dtype is torch.bfloat16:  # which the interpreter cuts off
        torch.testing.assert_close(spikes, expected, rtol=2**-7, atol=0)
    else:
        assert torch.equal(spikes, expected)
    assert all(torch.equal(s, e) for s, e in zip(last, expected_last, strict=True))
    # A parameter's gradient is a sum whose terms may cancel: they are about as large as these.
    terms = expected_grads[0].float().norm()
    for number, (g, e) in enumerate(zip(grads, expected_grads, strict=True)):
        assert g.dtype == e.dtype
        size = e.float().abs().max() if number <= len(state) else max(e.abs().max(), terms)
        tolerance = 1e-5 if g.dtype is torch.float32 else torch.finfo(g.dtype).eps
        assert (g.float() - e.float()).abs().max() <= tolerance * size + 1e-30


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("neuron_type", ZOO, ids=lambda kind: kind.__name__)
def test_every_neuron(neuron_type, dtype):
    choices = test_zoo.CHOICES[:2] if neuron_type in GRADED else test_zoo.CHOICES
    choice = choices[(ZOO.index(neuron_type) + DTYPES.index(dtype)) % len(choices)]
    neuron = test_zoo.build(neuron_type, *choice)
    assert explain(neuron.to(DEVICE), torch.rand(4, 2, 3, dtype=dtype).to(DEVICE)).backend == (
        "triton"
    )
    for shape in SHAPES:
        channels = len(shape) > 2 and shape[2] == 3
        if channels or not choice[-1]:  # else there are not as many channels as parameters
            check(neuron, (torch.randn(shape) + 0.3).to(dtype))
    check(neuron, torch.rand(1, 4, 3).to(dtype), time_steps=7)


@pytest.mark.parametrize("reset", ["zero", "subtract", "none"])
@pytest.mark.parametrize("surrogate", ["exponential", "fast_sigmoid", "arctan"])
@pytest.mark.parametrize("detach_reset", [True, False])
def test_every_reset_and_surrogate(reset, surrogate, detach_reset):
    settings = {"reset": reset, "surrogate": surrogate, "detach_reset": detach_reset}
    names = ("threshold", "current_decay", "voltage_decay")
    check(CUBA(0.9, 0.6, 0.2, learnable=names, **settings), torch.randn(9, 3, 5))


@pytest.mark.parametrize("neuron_type", RESONATORS, ids=lambda kind: kind.__name__)
def test_complex_input(neuron_type):
    neuron = test_zoo.build(neuron_type, *test_zoo.CHOICES[0])
    check(neuron, torch.randn(6, 4, 3, 2) + 0.3, view=torch.view_as_complex)


def test_the_chips_neuron():
    check(ChipCUBA(CUBA(1.0, 0.3, 0.1)), (torch.randn(9, 4, 3) * 64).round() / 64)


@pytest.mark.parametrize("kind", test_automatic.EXACT, ids=lambda kind: kind.__name__)
def test_own_neurons(kind):
    neuron = kind(test_automatic.names(kind))
    if kind is test_automatic.Noisy:  # draws on the CPU
        if DEVICE == "cuda":
            pytest.skip("its noise is the CPU's")
        check(neuron, torch.randn(6, 4, 3))
        return
    check(neuron, torch.randn(6, 4, 3) + 0.3)
    check(neuron, torch.rand(1, 4, 3), time_steps=5)


@pytest.mark.parametrize(
    "kind", [test_automatic.Exponential, test_automatic.Many], ids=lambda kind: kind.__name__
)
def test_what_torch_rounds_as_it_likes_is_close(kind):
    neuron = kind(test_automatic.names(kind)).to(DEVICE)
    generator = torch.Generator().manual_seed(0)
    z = 2 * torch.randn(1, 20, 7, 3, generator=generator).to(DEVICE)
    state = [torch.randn(z.shape[1:], generator=generator).to(DEVICE) for _ in range(kind.states)]
    outs = []
    for name in ("fused", "reference"):
        spikes, last, grads = outcome(name, neuron, z, state)
        outs.append((spikes, *last, *grads))
    for a, b in zip(*outs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=2e-5)


def scanned(step, z, state=()):
    """What the kernel gives, and the reference."""
    z, state = z.to(DEVICE), tuple(s.to(DEVICE) for s in state)
    ours = cuda.run(trace(step, z[0], state), (z,), state, z.shape[0])
    return ours, scan(step, (z,), state, z.shape[0])


SPECIAL = [0.0, -0.0, 0.5, 1.5, 2.5, -0.5, -1.5, 8388607.5, 4194304.5, 3e9, 1e-40]
SPECIAL += [-2.7, 1.2, float("inf"), -float("inf"), float("nan")]


@pytest.mark.parametrize(
    "function",
    [
        torch.round,
        torch.floor,
        torch.ceil,
        torch.sign,
        torch.relu,
        torch.neg,
        torch.abs,
        lambda z: z / 3 + z / 0.3 + 1 / z,
        lambda z: torch.maximum(z, z * 0.5),
        lambda z: torch.minimum(z * 0.5, z),
        lambda z: z.clamp(-1, 2),
        lambda z: ((z != z) | (z > 1) & ~(z <= 2) ^ (z == 0.5)).float(),
        lambda z: torch.where(z >= 0.5, z, torch.full_like(z, 2)),
    ],
)
def test_special_values(function):
    z = torch.tensor(SPECIAL)[None, None]
    (ours, _), (expected, _) = scanned(lambda z, state: (function(z), state), z)
    torch.testing.assert_close(ours, expected, rtol=0, atol=0, equal_nan=True)


def test_square_roots_are_those_of_ieee_754():
    z = torch.rand(1, 1, 1000) * 1e9  # torch's own are not, on a CPU
    (ours, _), _ = scanned(lambda z, state: (torch.sqrt(z), state), z)
    assert torch.equal(ours, z.double().sqrt().float().to(DEVICE))


@pytest.mark.parametrize("exponent", [3, -1, -2, 1.5, -0.5, 0.3, 1])
def test_powers(exponent):
    z = torch.tensor([0.0, 0.3, 1.0, 7.0, -1.0, -2.5, float("inf"), float("nan")])[None, None]
    (ours, _), (expected, _) = scanned(lambda z, state: (z**exponent, state), z)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=0, equal_nan=True)


def test_tanh_is_close_everywhere():
    z = torch.cat([torch.logspace(-30, 2, 300), -torch.logspace(-30, 2, 300)])[None, None]
    (ours, _), (expected, _) = scanned(lambda z, state: (torch.tanh(z), state), z)
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("shape", "view"),
    [
        ((3, 4, 3), lambda z: z.transpose(0, 1)),
        ((4, 2, 6, 5, 3), lambda z: z[:, :, ::2].permute(0, 1, 2, 4, 3)),
        ((3, 3), lambda z: z.expand(5, 3, 3)),
    ],
    ids=["N and T", "C and images", "held"],
)
def test_strides(shape, view):
    neuron = test_zoo.build(CUBA, "subtract", "arctan", False, True)
    check(neuron, torch.randn(shape) + 0.3, view=view)


def test_states_and_gradients_that_are_expanded():
    z = torch.randn(5, 4, 4).to(DEVICE).requires_grad_()
    state = torch.randn(1, 1).to(DEVICE).expand(4, 4)
    outs = []
    for name in ("fused", "reference"):
        with use_backend(name):
            _, (u, v) = CUBA(1.0, 0.5, 0.2).to(DEVICE)(z, (state, state.T), return_state=True)
        outs.append((u, v, *torch.autograd.grad(u.sum() + v.mean(), z)))
    for ours, expected in zip(*outs, strict=True):
        torch.testing.assert_close(ours, expected)


def test_gradient_of_the_state_alone():
    z, grads = torch.rand(5, 4, 3).to(DEVICE).requires_grad_(), []
    for name in ("fused", "reference"):
        with use_backend(name):
            _, (_, v) = CUBA(1.0, 0.5, 0.2).to(DEVICE)(z, return_state=True)
        grads.append(*torch.autograd.grad(v.sum(), z))
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("stretch", [1, 8])
def test_stretches_give_what_one_piece_gives(monkeypatch, stretch):
    monkeypatch.setattr(test_compiled, "GAIN", test_compiled.GAIN.to(DEVICE))
    step = test_compiled.leaky

    def run(inputs, state):
        inputs, state = ([x.to(DEVICE) for x in part] for part in (inputs, state))
        traced = trace(step, inputs[0][0], tuple(state), (inputs[1][0],))
        return cuda.run(traced, tuple(inputs), tuple(state), 23)

    def plain(inputs, state):
        inputs, state = (tuple(x.to(DEVICE) for x in part) for part in (inputs, state))
        return scan(step, inputs, state, 23)

    monkeypatch.setattr(cuda, "stretch_of", lambda *sizes: 23)
    whole = test_compiled.gradients(run, 23)
    monkeypatch.setattr(cuda, "stretch_of", lambda *sizes: stretch)
    parts = test_compiled.gradients(run, 23)
    for ours, expected in zip((*parts[0], *parts[1]), (*whole[0], *whole[1]), strict=True):
        assert torch.equal(ours, expected)
    reference = test_compiled.gradients(plain, 23)
    for ours, expected in zip((*parts[0], *parts[1]), (*reference[0], *reference[1]), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_a_long_sequence_keeps_few_states():
    kept = []
    neuron, z = LIF(1.0, 0.1).to(DEVICE), torch.rand(400, 2, 3).to(DEVICE).requires_grad_()
    neuron(z[:1])  # the first call compares kernel and reference
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: kept.append(x.nelement()) or x, lambda x: x
    ):
        spikes = neuron(z)
    assert sum(kept) <= 1.06 * z.nelement()
    spikes.sum().backward()


def test_nothing_gives_nothing():
    neuron = LIF(1.0, 0.1, learnable=("threshold",)).to(DEVICE)
    for shape in [(4, 0, 3), (4, 2, 0), (4, 2, 3, 0, 5)]:
        z = torch.rand(shape).to(DEVICE).requires_grad_()
        spikes = neuron(z)
        spikes.sum().backward()
        assert spikes.shape == z.grad.shape == shape
    assert neuron.threshold.grad.item() == 0


@pytest.mark.parametrize("steps", [1, 4], ids=["held", "at each step"])
def test_operators_keep_torchs_contract(steps):
    gain = torch.tensor([0.5, 1.0, 2.0]).to(DEVICE)

    def step(z, state, offset):
        v = 0.7 * state[0] + gain * z * z + offset
        return (v > 1).to(z.dtype), (v,)

    z, offset, start = (
        torch.rand(shape).to(DEVICE) for shape in ((4, 2, 3), (steps, 2, 3), (2, 3))
    )
    z, state = z.bfloat16(), (start,)
    traced = trace(step, z[0], state, (offset[0],))
    number = traced.number
    lists = ([z, offset], list(state), traced.scalars, traced.channels)
    leaves = [[x.clone().requires_grad_() for x in part] for part in lists]
    operators = torch.ops.spikestrap
    torch.library.opcheck(operators.scan_triton.default, (number, *leaves, 4, 2))
    grads = [torch.rand(4, 2, 3).bfloat16().to(DEVICE), torch.rand(2, 3).to(DEVICE)]
    borders = [torch.rand(1, 2, 3).to(DEVICE)]
    torch.library.opcheck(
        operators.scan_triton_backward.default,
        (number, grads, *lists, borders, 2, [0, 1], [0], [0]),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_compiles_to_the_same(dtype, fresh_compiler):
    neuron = test_zoo.build(ALIF, "subtract", "arctan", False, True).to(DEVICE)
    graph = torch.compile(neuron, fullgraph=True, backend="aot_eager")
    z = torch.rand(5, 4, 3).to(DEVICE, dtype)
    outs = []
    for call in (neuron, graph):
        leaf = z.clone().requires_grad_()
        spikes, state = call(leaf, return_state=True)
        total = spikes.float().sum() + state[-1].sum()
        outs.append((spikes, *state, *torch.autograd.grad(total, (leaf, *neuron.parameters()))))
    assert all(torch.equal(a, b) for a, b in zip(*outs, strict=True))


def test_double_backward_is_refused():
    z = torch.rand(4, 2, 3).to(DEVICE).requires_grad_()
    total = (LIF(1.0, 0.1).to(DEVICE)(z) * torch.rand(4, 2, 3).to(DEVICE).requires_grad_()).sum()
    (grad,) = torch.autograd.grad(total, z, create_graph=True)
    with pytest.raises(SpikestrapError, match="no second derivative"):
        grad.sum().backward()


def test_a_kernel_that_fails_gives_way_to_the_step(monkeypatch):
    def fail(source):
        raise RuntimeError("no C compiler\nand much more")

    monkeypatch.setattr(automatic, "_checked", {})
    monkeypatch.setattr(cuda, "_Kernel", fail)
    cuda._forward_kernel.cache_clear()
    neuron, z = LIF(1.0, 0.1).to(DEVICE), torch.rand(4, 2, 3).to(DEVICE)
    with pytest.warns(SpikestrapWarning, match=r"Triton cannot run .*no C compiler\)") as warned:
        spikes = [neuron(z) for _ in range(2)]
    assert len(warned) == 1
    with use_backend("reference"):
        assert all(torch.equal(out, neuron(z)) for out in spikes)
    assert explain(neuron, z).reason.endswith("RuntimeError: no C compiler")
    with use_backend("fused"), pytest.raises(SpikestrapError, match="no C compiler"):
        neuron(z)
    cuda._forward_kernel.cache_clear()
