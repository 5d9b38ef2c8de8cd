import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from spikestrap.kernel.trace import Untraceable, trace
from spikestrap.neuron import SURROGATES, Surrogate, spike

Z = torch.rand(2, 3)


def ops(step, *state):
    traced = trace(step, Z, state)
    return [node.op for node in traced.structure.nodes], traced


def test_what_depends_on_parameters_alone_is_computed_by_torch():
    frequency = torch.rand(3, requires_grad=True)
    found, traced = ops(lambda z, state: (z * torch.cos(frequency), ()))
    assert found == ["input", "channel", "mul"]
    assert torch.equal(traced.channels[0], torch.cos(frequency))
    assert traced.channels[0].requires_grad


def test_numbers_of_a_formula_are_part_of_it_and_others_are_values():
    _, one = ops(lambda z, state: (1 + 0.3 * z, ()))
    _, two = ops(lambda z, state: (1 + 0.7 * z, ()))
    _, three = ops(lambda z, state: (2 + 0.7 * z, ()))
    assert one.structure == two.structure != three.structure
    assert [s.item() for s in (*one.scalars, *two.scalars)] == pytest.approx([0.3, 0.7])


def test_any_surrogate_is_traced():
    found, _ = ops(lambda z, state: (spike(z, torch.tensor(1.0), SURROGATES["exponential"]), ()))
    assert {"sub", "exp", "abs", "spike"} <= set(found)
    square = Surrogate("square", lambda x: (x.abs() < 1).to(x.dtype), lambda x: x)
    found, _ = ops(lambda z, state: (spike(z, torch.tensor(1.0), square), ()))
    assert {"lt", "float", "spike"} <= set(found)


def test_no_grad_detaches():
    def step(z, state):
        with torch.no_grad():
            twice = 2 * z
        return twice * z, ()

    assert "detach" in ops(step)[0]


def test_shapes_may_be_looked_at_and_zeros_made():
    def step(z, state):
        assert z.ndim == 2
        assert z.shape[1] == 3
        return z.new_zeros(z.shape) + z, ()

    ops(step)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (lambda z, state: z, "does not return"),
        (lambda z, state: (z, (z,)), "returns 1 states for 0"),
        (lambda z, state: (1.0, ()), "not shaped like z: float"),
        (lambda z, state: (torch.zeros(3), ()), r"not shaped like z: \(3,\)"),
        (lambda z, state: (z + torch.ones(3, dtype=torch.float64), ()), "parameter of .*float64"),
        (lambda z, state: (z.numpy(), ()), "numpy"),
        (lambda z, state: (z * z[0, 0].item(), ()), "__getitem__"),
        (lambda z, state: (torch.tensor(float(z[:, 0])), ()), "__getitem__"),
        (lambda z, state: (z.new_full((1, 3), z.max()), ()), "max"),
        (lambda z, state: (torch.where(z > 0, z, z).data, ()), "Tensor.data"),
        (lambda z, state: (z**z, ()), "pow with these arguments"),
    ],
)
def test_says_what_is_not_known(step, message):
    with pytest.raises(Untraceable, match=message):
        trace(step, Z, ())


def test_unexpected_errors_of_a_step_are_its_own():
    with pytest.raises(ZeroDivisionError):
        trace(lambda z, state: 1 / 0, Z, ())


@pytest.mark.parametrize(
    ("step", "binary"),
    [
        (lambda z: spike(z, torch.tensor(1.0), SURROGATES["arctan"]), True),
        (lambda z: (z > 0).to(z.dtype), True),
        (lambda z: (z > 0).float() * (z < 1).float(), True),
        (lambda z: torch.where(z > 2, 0.0, (z > 0).float()), True),
        (lambda z: torch.where(z > 2, 2.0, (z > 0).float()), False),
        (lambda z: (z > 0).float() / 2, False),
        (lambda z: (z > 0).float() * z, False),
        (lambda z: (z > 0).float() + (z > 1).float(), False),
        (lambda z: z, False),
    ],
)
def test_whether_spikes_are_binary(step, binary):
    assert ops(lambda z, state: (step(z), ()))[1].structure.is_binary == binary


def test_on_a_gpu_a_quotient_by_a_number_is_a_product_as_torch_has_it():
    def step(z, state):
        return z / 3 + z / 0.3, (state[0] / z,)

    with torch.no_grad(), FakeTensorMode():
        z = torch.empty(2, 3, device="cuda")
        traced = trace(step, z, (z,))
    nodes = traced.structure.nodes
    assert all(scalar.device.type == "cuda" for scalar in traced.scalars)
    (by_input,) = [node for node in nodes if node.op == "div" and nodes[node.args[1]].op == "input"]
    assert nodes[by_input.args[0]].op == "state"
    assert [nodes[i].op for i in nodes[traced.structure.spikes].args] == ["mul", "mul"]
    _, on_cpu = ops(step, Z)
    assert "mul" not in [node.op for node in on_cpu.structure.nodes]
