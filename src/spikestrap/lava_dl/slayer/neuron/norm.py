"""lava.lib.dl.slayer.neuron.norm: the norm to name in a neuron dict."""

from ...missing import missing
from ...neuron_params import MeanOnlyBatchNorm

__all__ = ["MeanOnlyBatchNorm"]

__getattr__ = missing(
    __name__, {"WgtScaleBatchNorm": 'spikestrap.block has norm="batch", folded into the weights'}
)
