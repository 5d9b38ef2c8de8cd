import torch

from spikestrap.kernel import compiled
from spikestrap.kernel.trace import trace

GAIN = torch.tensor([0.5, 1.0, 2.0])


def step(z, state, offset):
    (v,) = state
    v = 0.7 * v + GAIN * z * z + offset
    return (v > 1).to(z.dtype), (v,)


def test_operators_keep_torchs_contract():
    z, state, offset = torch.rand(4, 2, 3), (torch.rand(2, 3),), torch.rand(1, 2, 3)
    traced = trace(step, z[0], state, (offset[0],))
    number = compiled.number_of(traced.structure)
    lists = ([z, offset], list(state), traced.scalars, traced.channels)
    leaves = [[x.clone().requires_grad_() for x in part] for part in lists]
    torch.library.opcheck(torch.ops.spikestrap.scan_compiled.default, (number, *leaves, 4))
    grads = [torch.rand(4, 2, 3), torch.rand(2, 3)]
    torch.library.opcheck(
        torch.ops.spikestrap.scan_compiled_backward.default,
        (number, grads, *lists, [0, 1], [0], [0]),
    )


def test_equal_structures_share_a_number():
    z, state = torch.rand(2, 3), (torch.rand(2, 3),)
    numbers = [
        compiled.number_of(trace(step, z, state, (offset,)).structure)
        for offset in (torch.zeros(2, 3), torch.ones(2, 3))
    ]
    assert numbers[0] == numbers[1]
