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
