import pytest
import torch

from spikestrap.kernel.reference import scan


def leaky(z, state):
    (v,) = state
    v = 0.5 * v + z
    return v, (v,)


def test_scans_in_order():
    z = torch.tensor([[1.0], [0.0], [4.0]])
    out, (v,) = scan(leaky, (z,), (torch.zeros(1),), 3)
    assert out.flatten().tolist() == [1.0, 0.5, 4.25]
    assert v.item() == 4.25


def test_holds_a_single_input():
    out, (v,) = scan(leaky, (torch.tensor([[1.0]]),), (torch.zeros(1),), 3)
    assert out.flatten().tolist() == [1.0, 1.5, 1.75]
    assert v.item() == 1.75


def test_gradients_go_through_time():
    z = torch.tensor([[1.0], [0.0], [4.0]], requires_grad=True)
    v = torch.zeros(1, requires_grad=True)
    out, _ = scan(leaky, (z,), (v,), 3)
    out[2].backward()
    assert z.grad.flatten().tolist() == [0.25, 0.5, 1.0]
    assert v.grad.tolist() == [0.125]


def filtered(z, state, gain):
    u, v = state
    u = 0.5 * u + z * gain
    v = 0.9 * v + u.sin()
    return u * v, (u, v)


def gradients(checkpoint_steps, held):
    """Of results, z, a gain and the first states; and how many floats the graph keeps."""
    generator = torch.Generator().manual_seed(0)
    leaves = [
        torch.randn(shape, generator=generator).requires_grad_()
        for shape in ((1 if held else 11, 5, 3), (11, 5, 3), (5, 3), (5, 3))
    ]
    z, gain, *state = leaves
    kept = {}

    def keep(x):
        kept[x.data_ptr()] = x.nelement()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        out, last = scan(filtered, (z, gain), tuple(state), 11, checkpoint_steps)
    total = sum((x * torch.randn(x.shape, generator=generator)).sum() for x in (out, *last))
    return [out, *last, *torch.autograd.grad(total, leaves)], sum(kept.values())


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("checkpoint_steps", [1, 3, 11, 20])
def test_checkpoints_change_nothing(checkpoint_steps, held):
    plain, _ = gradients(None, held)
    found, _ = gradients(checkpoint_steps, held)
    for number, (ours, expected) in enumerate(zip(found, plain, strict=True)):
        if held and number == 3:  # a sum over time, in another order
            torch.testing.assert_close(ours, expected)
        else:
            assert torch.equal(ours, expected)


def test_checkpoints_keep_less():
    inputs, state = 2 * 11 * 15, 2 * 15
    assert gradients(None, False)[1] >= 2 * inputs
    assert gradients(4, False)[1] <= inputs + 3 * state


def test_no_gradient_no_checkpoint(monkeypatch):
    monkeypatch.setattr("spikestrap.kernel.reference.checkpoint", None)
    with torch.no_grad():
        scan(filtered, (torch.ones(9, 2), torch.ones(1, 2)), (torch.zeros(2),) * 2, 9, 2)
