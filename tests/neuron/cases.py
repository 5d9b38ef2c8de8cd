"""Random neurons and inputs, checked against `tests.plain`. What all neurons' tests share."""

import math

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from tests import plain

from spikestrap.kernel import use_backend
from spikestrap.neuron import (
    ALIF,
    CUBA,
    IF,
    LIF,
    PLIF,
    RF,
    AdRF,
    AdRFIzhikevich,
    Delta,
    NoisyLIF,
    RefractoryLIF,
    RFIzhikevich,
    SigmaDelta,
)

INTEGRATORS = (CUBA, LIF, IF)
RESONATORS = (RF, RFIzhikevich, AdRF, AdRFIzhikevich)
GRADED = (Delta, SigmaDelta)
ZOO = (*INTEGRATORS, PLIF, RefractoryLIF, NoisyLIF, ALIF, *RESONATORS, *GRADED)
PARAMETERS = {kind: tuple(kind.bounds) for kind in ZOO}
every_neuron = pytest.mark.parametrize("neuron_type", ZOO, ids=lambda kind: kind.__name__)
every_integrator = pytest.mark.parametrize(
    "neuron_type", INTEGRATORS, ids=lambda kind: kind.__name__
)

# 45 degrees a step, and all shrinks by the root of 1/2: x, y become (x - y) / 2, (x + y) / 2.
HALF_TURN = {"period": 8.0, "decay": 1 - math.sqrt(0.5)}


def learnable_names(neuron_type):
    return tuple(name for name, bounds in neuron_type.bounds.items() if not bounds.whole)


def make(neuron_type, value=0.3, **settings):
    """One with all its parameters at a value, but for those that could not take it."""
    special = {"period": 6.0, "refractory_steps": 2.0}
    values = {name: special.get(name, value) for name in neuron_type.bounds}
    return neuron_type(**values, **settings)


def run(neuron, z, *args, **options):
    """The neuron on z, its noise, if any, the same at every call."""
    torch.manual_seed(0)
    return neuron(z, *args, **options)


def is_compiled(neuron_type, backend):
    """Whether kernels are compiled that the tests of the others have not compiled already."""
    return backend != "reference" and neuron_type not in INTEGRATORS


def settings_for(neuron_type, settings):
    """Of the settings of `options`, those that the neuron has."""
    missing = ("reset", "detach_reset") if neuron_type in GRADED else ()
    return {name: value for name, value in settings.items() if name not in missing}


seeds = st.integers(0, 2**32 - 1)
backends = st.sampled_from(
    [
        (torch.float32, "fused"),
        (torch.float32, "reference"),
        (torch.float64, "auto"),
    ]
)
options = st.fixed_dictionaries(
    {
        "reset": st.sampled_from(["zero", "subtract", "none"]),
        "surrogate": st.sampled_from(["exponential", "fast_sigmoid", "arctan"]),
        "tau_grad": st.sampled_from([0.5, 1.0, 2.0]),
        "scale_grad": st.sampled_from([0.5, 1.0, 3.0]),
        "detach_reset": st.booleans(),
    }
)


def draw_parameters(neuron_type, seed, channels=None, grid=False):
    """Values within bounds: numbers, or tensors (channels,); on a grid of 1/4 or anywhere."""
    generator = torch.Generator().manual_seed(seed)
    size = () if channels is None else (channels,)

    def draw(low, high):
        value = low + (high - low) * torch.rand(size, generator=generator)
        return (value * 4).round() / 4 if grid else value

    ranges = {"threshold": (0.5, 2.0), "period": (4.0, 12.0), "refractory_steps": (0.0, 3.0)}
    ranges |= dict.fromkeys(("v_init", "w", "bias"), (-1.0, 1.0))
    values = {name: draw(*ranges.get(name, (0.0, 1.0))) for name in neuron_type.bounds}
    whole = [name for name, bounds in neuron_type.bounds.items() if bounds.whole]
    return {name: v.round() if name in whole else v for name, v in values.items()}


def draw_input(seed, shape, grid=False):
    z = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + 0.3
    return (z * 4).round() / 4 if grid else z


def rule_of(parameters, settings, channel):
    """The same for one neuron of `tests.plain`."""
    values = {k: (v if v.ndim == 0 else v[channel]).item() for k, v in parameters.items()}
    return plain.Rule(**values, **settings)


def check_equations(neuron_type, seed, time_steps, per_channel, grid, dtype, backend, **settings):
    """Spikes and final states are those of plain Python, to the bit."""
    n, c = 2, 3
    parameters = draw_parameters(neuron_type, seed, c if per_channel else None, grid)
    neuron = neuron_type(**parameters, **settings).to(dtype)
    z = draw_input(seed, (time_steps, n, c), grid).to(dtype)
    with use_backend(backend):
        spikes, state = neuron(z, return_state=True)
    number = np.float32 if dtype is torch.float32 else float
    for i in range(n):
        for k in range(c):
            rule = rule_of(parameters, settings, k)
            expected, u, v = plain.simulate(z[:, i, k].tolist(), rule, number)
            assert spikes[:, i, k].tolist() == expected
            assert state[-1][i, k].item() == v
            if neuron_type is CUBA:
                assert state[0][i, k].item() == u


def check_gradients(neuron_type, seed, time_steps, per_channel, dtype, backend, **settings):
    """The change along a random direction is that of forward differentiation."""
    n, c = 2, 3
    parameters = draw_parameters(neuron_type, seed, c if per_channel else None)
    neuron = neuron_type(**parameters, **settings, learnable=tuple(parameters)).to(dtype)
    z = draw_input(seed, (time_steps, n, c)).to(dtype).requires_grad_()
    with use_backend(backend):
        spikes, state = neuron(z, return_state=True)
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    by_spikes, by_u, by_v = draw(time_steps, n, c), draw(n, c), draw(n, c)
    total = (spikes * by_spikes).sum() + (state[-1] * by_v).sum()
    if neuron_type is CUBA:
        total = total + (state[0] * by_u).sum()
    total.backward()

    along_z = draw(time_steps, n, c)
    along = {name: draw(*value.shape) for name, value in parameters.items()}
    change = (z.grad * along_z).sum().item()
    change += sum((getattr(neuron, k).grad * value).sum().item() for k, value in along.items())

    expected, size = 0.0, 0.0
    number = np.float32 if dtype is torch.float32 else float
    names = ("threshold", "current_decay", "voltage_decay", "v_init")
    for i in range(n):
        for k in range(c):
            rule = rule_of(parameters, settings, k)
            direction = dict.fromkeys(names, 0.0) | {
                name: (value if value.ndim == 0 else value[k]).item()
                for name, value in along.items()
            }
            direction["z"] = along_z[:, i, k].tolist()
            ds, du, dv = plain.directional(z[:, i, k].tolist(), rule, direction, number)
            terms = [w * d for w, d in zip(by_spikes[:, i, k].tolist(), ds, strict=True)]
            terms += [by_v[i, k].item() * dv]
            if neuron_type is CUBA:
                terms += [by_u[i, k].item() * du]
            expected += sum(terms)
            size += sum(abs(term) for term in terms)
    tolerance = 1e-5 if dtype is torch.float32 else 1e-6
    assert change == pytest.approx(expected, abs=tolerance * max(size, 1))


def check_special_case(
    neuron_type, general_type, fixed, seed, time_steps, per_channel, dtype, backend, **settings
):
    """With what is fixed the general type has, to the bit, its spikes, membranes and gradients."""
    parameters = draw_parameters(neuron_type, seed, 3 if per_channel else None)
    outs = []
    for kind, more in ((neuron_type, {}), (general_type, fixed)):
        neuron = kind(**parameters, **more, **settings, learnable=tuple(parameters)).to(dtype)
        z = draw_input(seed, (time_steps, 2, 3)).to(dtype).requires_grad_()
        with use_backend(backend):
            spikes, state = neuron(z, return_state=True)
        (spikes.sum() + state[-1].sum()).backward()
        grads = [getattr(neuron, parameter).grad for parameter in parameters]
        outs.append((spikes, state[-1], z.grad, *grads))
    for special, general in zip(*outs, strict=True):
        assert torch.equal(special, general)
