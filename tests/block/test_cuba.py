"""A layer of CUBA neurons against plain Python. What blocks share is in test_base."""

import numpy as np
import torch
from tests import plain

from spikestrap import Mode
from spikestrap.block import cuba


def test_dense_is_a_matrix_and_neurons():
    block = cuba.Dense(
        {"threshold": 1.0, "current_decay": 0.5, "voltage_decay": 0.25}, 5, 3, weight_scale=3.0
    )
    # Few bits, so that sums are exact in any order.
    with torch.no_grad():
        block.synapse.weight.copy_((block.synapse.weight * 16).round() / 16)
    x = (torch.rand(12, 4, 5) > 0.5).float()
    spikes = block(x, mode=Mode.SNN)
    z = np.einsum("tni,oi->tno", x.numpy(), block.synapse.weight.detach().numpy())
    rule = plain.Rule(current_decay=0.5, voltage_decay=0.25)
    for n in range(4):
        for o in range(3):
            expected, _, _ = plain.simulate(z[:, n, o], rule, np.float32)
            assert spikes[:, n, o].tolist() == expected
    assert 0 < spikes.mean() < 1
