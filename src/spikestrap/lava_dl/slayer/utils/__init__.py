"""lava.lib.dl.slayer.utils: statistics, the training assistant, time."""

from ...missing import missing
from ...stats import LearningStat, LearningStats
from . import filter, time
from .assistant import Assistant
from .quantize import QUANTIZE_MODE, quantize

__all__ = [
    "QUANTIZE_MODE",
    "Assistant",
    "LearningStat",
    "LearningStats",
    "filter",
    "quantize",
    "time",
]

__getattr__ = missing(
    __name__,
    {
        "diagonal_mask": "torch.ones(n, n).triu(-k).tril(k) makes one",
        "staticproperty": "a plain attribute of the class does it",
    },
)
