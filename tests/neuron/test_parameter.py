import pytest
import torch
from tests.neuron.cases import draw_parameters, every_neuron, learnable_names, run
from torch import nn

from spikestrap import SpikestrapError
from spikestrap.kernel import use_backend
from spikestrap.neuron import CUBA, IF, LIF, Neuron
from spikestrap.neuron.parameter import broadcast, register_all

BACKENDS = pytest.mark.parametrize("backend", ["reference", "fused"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: IF(-1.0), "IF: threshold must be > 0, got -1"),
        (lambda: IF(0.0), "IF: threshold must be > 0, got 0"),
        (lambda: IF(float("nan")), "IF: threshold must be > 0, got nan"),
        (lambda: IF(float("inf")), "IF: threshold must be > 0, got inf"),
        (lambda: LIF(1.0, 1.5), r"LIF: voltage_decay must be in \[0, 1\], got 1.5"),
        (lambda: LIF(1.0, -0.1), r"LIF: voltage_decay must be in \[0, 1\], got -0.1"),
        (lambda: CUBA(1.0, 2.0), r"CUBA: current_decay must be in \[0, 1\], got 2"),
        (lambda: IF(1.0, v_init=float("-inf")), "IF: v_init must be finite, got -inf"),
        (lambda: LIF(1.0, torch.tensor([0.1, 7.0])), r"voltage_decay must be in \[0, 1\], got 7"),
        (lambda: LIF("high", 0.1), r"threshold must be a number or a tensor \(C,\), got 'high'"),
        (lambda: LIF(1.0, None), r"voltage_decay must be a number or a tensor \(C,\), got None"),
        (lambda: IF(torch.ones(2, 2)), r"threshold must be .* got shape \(2, 2\)"),
        (lambda: IF(torch.ones(0)), r"threshold must be .* got shape \(0,\)"),
        (
            lambda: IF(1.0, learnable=("voltage_decay",)),
            "IF: learnable may hold threshold, v_init; got 'voltage_decay'",
        ),
        (lambda: IF(1.0, learnable="threshold"), "must be a tuple of names, got 'threshold'"),
    ],
)
def test_refuses_and_says_what_came(make, message):
    with pytest.raises(SpikestrapError, match=message):
        make()


@every_neuron
@pytest.mark.parametrize("channels", [None, 3])
def test_learnable_is_a_parameter_and_the_rest_a_buffer(neuron_type, channels):
    values = draw_parameters(neuron_type, 0, channels)
    names = learnable_names(neuron_type)
    for learnable in [(), names[:1], names]:
        neuron = neuron_type(**values, learnable=learnable)
        assert {name for name, _ in neuron.named_parameters()} == set(learnable)
        assert {name for name, _ in neuron.named_buffers()} == set(values) - set(learnable)
        for tensor in neuron.state_dict().values():
            assert tensor.dtype is torch.float32
            assert tensor.shape == (() if channels is None else (channels,))


def test_values_are_copied():
    decay = torch.tensor([0.1, 0.2])
    lif = LIF(1.0, decay)
    decay.zero_()
    assert lif.voltage_decay.tolist() == pytest.approx([0.1, 0.2])


@every_neuron
@pytest.mark.parametrize("backend", ["reference", "auto"])
@pytest.mark.parametrize("shape", [(25, 4, 3), (25, 4, 3, 6, 2)])
def test_one_value_a_channel_is_a_neuron_a_channel(neuron_type, backend, shape):
    values = draw_parameters(neuron_type, 7, 3)
    z = 3 * torch.rand(shape) - 1.2
    if "noise" in values:  # which would be another one for other shapes
        values["noise"].zero_()
    with use_backend(backend):
        together = run(neuron_type(**values), z)
        for k in range(3):
            alone = neuron_type(**{name: v[k].item() for name, v in values.items()})
            assert torch.equal(together[:, :, k], run(alone, z[:, :, k]))
    assert 0 < together.abs().mean() < 1


@every_neuron
@pytest.mark.parametrize("shape", [(4, 2, 5), (4, 3), (4, 3, 2)])
def test_refuses_other_numbers_of_channels(neuron_type, shape):
    for name in neuron_type.bounds:
        values = draw_parameters(neuron_type, 0) | {name: draw_parameters(neuron_type, 0, 3)[name]}
        neuron = neuron_type(**values)
        message = rf"{neuron_type.__name__}: {name} has 3 values.*expected \(N, 3, \.\.\.\)"
        with pytest.raises(SpikestrapError, match=message):
            neuron(torch.rand(shape))


@every_neuron
def test_refuses_values_out_of_bounds(neuron_type):
    fine = draw_parameters(neuron_type, 0)
    for name, bounds in neuron_type.bounds.items():
        outside = [float("nan"), float("inf"), bounds.low - 0.5, bounds.high + 0.5]
        outside += [0.0] if bounds.positive else []
        outside += [1.5] if bounds.whole else []
        for value in outside:
            for given in (value, torch.tensor([fine[name].item(), value])):
                with pytest.raises(SpikestrapError, match=rf"{neuron_type.__name__}: {name} must"):
                    neuron_type(**(fine | {name: given}))


@every_neuron
def test_refuses_to_learn_what_it_has_not(neuron_type):
    fine = draw_parameters(neuron_type, 0)
    whole = set(neuron_type.bounds) - set(learnable_names(neuron_type))
    for name in ("charm", *whole):
        with pytest.raises(SpikestrapError, match=f"learnable may hold .*; got '{name}'"):
            neuron_type(**fine, learnable=(name,))


@BACKENDS
@pytest.mark.parametrize(("outside", "inside"), [(-0.25, 0.0), (1.5, 1.0)])
@pytest.mark.parametrize("name", ["current_decay", "voltage_decay"])
@pytest.mark.parametrize("channels", [None, 3])
def test_a_decay_driven_out_of_bounds_is_clamped(backend, outside, inside, name, channels):
    z = torch.rand(6, 4, 3)
    size = () if channels is None else (channels,)

    def run(value):
        cuba = CUBA(1.0, 0.5, 0.5, learnable=(name,))
        setattr(cuba, name, nn.Parameter(torch.full(size, value)))
        with use_backend(backend):
            spikes, state = cuba(z, return_state=True)
        (spikes * z).sum().backward()
        return spikes, state, getattr(cuba, name).grad

    (spikes, state, grad), (at_bound, state_at_bound, grad_at_bound) = run(outside), run(inside)
    assert torch.equal(spikes, at_bound)
    assert all(torch.equal(a, b) for a, b in zip(state, state_at_bound, strict=True))
    # The gradient is that at the bound, so the parameter can come back.
    assert torch.equal(grad, grad_at_bound)
    assert (grad != 0).all()


@BACKENDS
@pytest.mark.parametrize("start", [-0.5, 1.5])
def test_a_decay_out_of_bounds_comes_back(backend, start):
    # Towards the membrane trace of a decay of 0.3, with a threshold that is never reached.
    z = torch.rand(6, 40, 1)
    with use_backend(backend):
        _, (target,) = LIF(1e3, 0.3)(z, return_state=True)
        lif = LIF(1e3, 0.5, learnable=("voltage_decay",))
        with torch.no_grad():
            lif.voltage_decay.fill_(start)
        optimizer = torch.optim.Adam(lif.parameters(), lr=0.1)
        for _ in range(200):
            optimizer.zero_grad()
            _, (v,) = lif(z, return_state=True)
            ((v - target) ** 2).mean().backward()
            optimizer.step()
    assert lif.voltage_decay.item() == pytest.approx(0.3, abs=0.05)


@BACKENDS
def test_a_threshold_driven_below_zero_stays_positive(backend):
    neuron = IF(0.5, reset="subtract", learnable=("threshold",))
    with torch.no_grad():
        neuron.threshold.fill_(-3.0)
    z = torch.tensor([[[-0.1, 0.0, 0.1]]])
    with use_backend(backend):
        spikes = neuron(z)
    assert spikes.flatten().tolist() == [0, 0, 1]
    spikes.sum().backward()
    assert torch.isfinite(neuron.threshold.grad)
    assert neuron.threshold.grad != 0


@BACKENDS
@pytest.mark.parametrize("threshold", [5e-4, 0.3])
def test_learnable_alone_changes_nothing(backend, threshold):
    z = 2 * threshold * torch.rand(5, 4, 3)
    with use_backend(backend):
        fixed, learnt = IF(threshold)(z), IF(threshold, learnable=("threshold",))(z)
    assert fixed.sum() > 0
    assert torch.equal(fixed, learnt)


def test_parameters_without_bounds():
    class Free(Neuron):
        def __init__(self, learnable=()):
            super().__init__()
            register_all(self, learnable, gain=-2.0)

        def init_state(self, z):
            return ()

        def step(self, z, state):
            (gain,) = broadcast(self, z, "gain")
            return (gain * z > 0).to(z.dtype), state

    z = torch.tensor([[[1.0, -1.0]]])
    for learnable in ((), ("gain",)):
        neuron = Free(learnable)
        assert isinstance(neuron.gain, nn.Parameter) == bool(learnable)
        assert neuron(z).tolist() == [[[0.0, 1.0]]]
    with pytest.raises(SpikestrapError, match="learnable may hold gain; got 'other'"):
        Free(("other",))


def test_bounds_hold_for_tensors_in_the_place_of_parameters():
    neuron = LIF(1.0, 0.5, learnable=("voltage_decay", "threshold"))
    with torch.no_grad():
        neuron.voltage_decay.fill_(1.5)  # where an optimizer may push it
    tensors = {name: parameter.detach() for name, parameter in neuron.named_parameters()}
    z = 1.5 * torch.rand(8, 4, 3)
    assert torch.equal(torch.func.functional_call(neuron, tensors, (z,)), neuron(z))
    assert torch.equal(neuron(z), LIF(1.0, 1.0)(z))


def test_names_may_come_from_an_iterator():
    assert isinstance(IF(1.0, learnable=(n for n in ("threshold",))).threshold, nn.Parameter)
