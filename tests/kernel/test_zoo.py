"""Every neuron of the package has a fused kernel, and it gives what the step gives."""

import pytest
import torch
from tests.kernel.test_cuba import check
from tests.neuron.cases import (
    GRADED,
    RESONATORS,
    ZOO,
    draw_parameters,
    every_neuron,
    learnable_names,
    make,
)

from spikestrap import SpikestrapError
from spikestrap.block import KWTA, Recurrent
from spikestrap.kernel import explain, use_backend
from spikestrap.neuron import LIF, AdRF, NoisyLIF, SigmaDelta

# (reset, surrogate, detach_reset, parameters one a channel): every choice meets every neuron.
CHOICES = [
    ("zero", "exponential", True, False),
    ("subtract", "fast_sigmoid", False, True),
    ("none", "arctan", True, True),
]
# N * C * ... beyond a block's width, and beyond a row of the longest.
LARGE = (2, 3, 3, 17, 50)


def build(neuron_type, reset, surrogate, detach_reset, per_channel, **settings):
    settings |= {"surrogate": surrogate, "learnable": learnable_names(neuron_type)}
    if neuron_type not in GRADED:
        settings |= {"reset": reset, "detach_reset": detach_reset}
    if (reset, per_channel) != ("zero", False):
        settings |= {"tau_grad": 0.7, "scale_grad": 1.3}
    return neuron_type(**draw_parameters(neuron_type, 1, 3 if per_channel else None), **settings)


def cases():
    """All of them, as a kernel takes seconds to compile; one a neuron is never left out."""
    for number, kind in enumerate(ZOO):
        choices = CHOICES[:2] if kind in GRADED else CHOICES
        for k, choice in enumerate(choices):
            marks = () if k == number % len(choices) else pytest.mark.slow
            yield pytest.param(kind, choice, id=f"{kind.__name__}-{choice[0]}", marks=marks)


@every_neuron
def test_has_a_kernel(neuron_type):
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            assert explain(make(neuron_type), torch.rand(4, 2, 3)).backend == "compiled"


@pytest.mark.parametrize(("neuron_type", "choice"), list(cases()))
def test_gives_what_the_step_gives(neuron_type, choice):
    neuron = build(neuron_type, *choice)
    for shape in [(7, 4, 3), LARGE]:
        check(neuron, torch.randn(shape) + 0.3)
    check(neuron, torch.rand(1, 4, 3), time_steps=7)
    views = [
        ((3, 4, 3), lambda z: z.transpose(0, 1)),
        ((4, 2, 6, 5, 3), lambda z: z[:, :, ::2].permute(0, 1, 2, 4, 3)),
    ]
    for shape, view in views:
        check(neuron, torch.randn(shape) + 0.3, view)


@pytest.mark.parametrize("neuron_type", RESONATORS, ids=lambda kind: kind.__name__)
def test_complex_input(neuron_type):
    neuron = build(neuron_type, *CHOICES[0])
    assert explain(neuron, torch.rand(4, 2, 3) + 0j).backend == "compiled"
    for shape in ((6, 4, 3, 2), (*LARGE, 2)):
        check(neuron, torch.randn(shape) + 0.3, torch.view_as_complex)
    check(neuron, torch.randn(1, 4, 3, 2) + 0.3, torch.view_as_complex, time_steps=5)


def test_an_activation_with_exp_is_close():
    neuron, z = SigmaDelta(0.1, activation="sigmoid"), torch.randn(20, 4, 3)
    with use_backend("fused"):
        fused = neuron(z)
    with use_backend("reference"):
        torch.testing.assert_close(fused, neuron(z), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("time_steps", [1, 2, 4, 9])
def test_noise_is_the_same_whatever_runs(time_steps):
    # The first call of a fresh process compares kernel and step, which must not draw noise.
    neuron, z, outs = NoisyLIF(1.0, 0.1, 0.5), torch.rand(time_steps, 4, 3), []
    for backend in ("fused", "reference"):
        torch.manual_seed(3)
        with use_backend(backend):
            outs.append((neuron(z), torch.rand(3)))
    assert all(torch.equal(a, b) for a, b in zip(*outs, strict=True))
    torch.manual_seed(3)
    explain(neuron, z)
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    explain(neuron, z)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("block", "reason"),
    [(Recurrent(LIF(1.0, 0.1), 5, 3), "linear"), (KWTA(LIF(1.0, 0.1), 5, 3, 1), "sum")],
)
def test_neurons_that_drive_each_other_run_on_the_reference(block, reason):
    neuron, z = block.unit.neuron, torch.rand(6, 4, 3)
    assert explain(neuron, z) == ("reference", reason)
    with use_backend("reference"):
        expected = neuron(z)
    assert torch.equal(neuron(z), expected)
    with use_backend("fused"), pytest.raises(SpikestrapError, match=f"no fused kernel.*{reason}"):
        neuron(z)


@pytest.mark.parametrize(
    ("neuron", "z"),
    [(make(NoisyLIF), torch.rand(5, 4, 3)), (make(AdRF), torch.rand(5, 4, 3) + 0.5j)],
    ids=["noise", "complex"],
)
def test_inside_torch_compile(neuron, z, fresh_compiler):
    compiled = torch.compile(neuron, fullgraph=True, backend="aot_eager")
    torch.manual_seed(0)
    expected = neuron(z)
    torch.manual_seed(0)
    assert torch.equal(compiled(z), expected)
