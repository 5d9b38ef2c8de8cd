"""The part that adaptive neurons share: a threshold that rises and a refractory state.

.. math::
    \\vartheta[t] &= (1 - d_\\vartheta)\\, (\\vartheta[t-1] - \\vartheta_0) + \\vartheta_0 \\\\
    r[t] &= (1 - d_r)\\, r[t-1]

before a step decides on its spikes s[t], and then

.. math::
    r[t] &\\leftarrow r[t] + 2\\, \\vartheta[t]\\, s[t] \\\\
    \\vartheta[t] &\\leftarrow \\vartheta[t] + \\vartheta_{step}\\, s[t]

(lava-dl's adaptive neurons, slayer.neuron.alif and its relatives; the rising threshold is
that of Bellec et al., Long short-term memory and learning-to-learn, NeurIPS 2018.)
"""

from __future__ import annotations

from torch import Tensor

from .parameter import DECAY, NOT_NEGATIVE

BOUNDS = {
    "threshold_step": NOT_NEGATIVE,
    "threshold_decay": DECAY,
    "refractory_decay": DECAY,
}


def relax(
    theta: Tensor, r: Tensor, threshold: Tensor, threshold_decay: Tensor, refractory_decay: Tensor
) -> tuple[Tensor, Tensor]:
    """Threshold and refractory state of this step, from those that the last one left.

    >>> import torch
    >>> one, half = torch.tensor(1.0), torch.tensor(0.5)
    >>> [x.item() for x in relax(torch.tensor(3.0), torch.tensor(2.0), one, half, half)]
    [2.0, 1.0]
    """
    return (theta - threshold) * (1 - threshold_decay) + threshold, r * (1 - refractory_decay)


def rise(theta: Tensor, r: Tensor, spikes: Tensor, threshold_step: Tensor) -> tuple[Tensor, Tensor]:
    """The same after the step's spikes.

    >>> import torch
    >>> one = torch.tensor(1.0)
    >>> [x.item() for x in rise(torch.tensor(2.0), one, one, torch.tensor(0.5))]
    [2.5, 5.0]
    """
    return theta + spikes * threshold_step, r + 2 * spikes * theta
