"""lava.lib.dl.slayer.utils: statistics, the training assistant, time."""

from ...missing import missing
from . import filter, stats, time
from .assistant import Assistant
from .quantize import QUANTIZE_MODE, quantize
from .stats import LearningStat, LearningStats

__all__ = [
    "QUANTIZE_MODE",
    "Assistant",
    "LearningStat",
    "LearningStats",
    "filter",
    "quantize",
    "stats",
    "time",
]

__getattr__ = missing(
    __name__,
    {
        "quantize_hook_fx": "a block without pre_hook_fx has 8-bit weights, with None float ones",
        "diagonal_mask": "torch.ones(n, n).triu(-k).tril(k) makes one",
        "dotdict": "types.SimpleNamespace(**d) has the keys of d as attributes",
        "event_rate": "x.ne(0).float().mean() is it; count_log=True has a block give its own",
        "staticproperty": "a plain attribute of the class does it",
    },
)
