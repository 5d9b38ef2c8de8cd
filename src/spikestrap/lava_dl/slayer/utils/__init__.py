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
        "quantize_hook_fx": "a block without pre_hook_fx has 8-bit weights, with None float ones",
        "stats": "slayer.utils has LearningStat and LearningStats",
        "diagonal_mask": "torch.ones(n, n).triu(-k).tril(k) makes one",
        "staticproperty": "a plain attribute of the class does it",
    },
)
