"""lava.lib.dl.slayer.utils.stats: statistics of learning."""

from ...stats import LearningStat, LearningStats

__all__ = ["LearningStat", "LearningStats"]
