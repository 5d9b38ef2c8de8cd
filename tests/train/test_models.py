import numpy as np
import pytest
import torch

from spikestrap.neuron import IF
from spikestrap.train.models import batch_norm_neuron


def error(threshold, time_steps):
    """Mean square distance of an IF neuron's rates to ReLU, for normal inputs held for T steps."""
    neuron = IF(threshold=threshold, v_init=threshold / 2, reset="subtract")
    z = torch.linspace(-5, 5, 4001)
    rate = neuron(z.expand(time_steps, -1)).mean(0)
    weight = torch.exp(-(z**2) / 2)
    return float((weight * (threshold * rate - z.relu()) ** 2).sum() / weight.sum())


@pytest.mark.parametrize("time_steps", [1, 2, 3, 4, 8, 16])
def test_the_threshold_behind_batch_norm_is_that_of_the_least_error(time_steps):
    own = batch_norm_neuron(time_steps)["threshold"]
    least = min(error(threshold, time_steps) for threshold in np.arange(0.5, 4, 0.1))
    assert error(own, time_steps) < 1.03 * least
