"""lava.lib.dl.bootstrap.ann_sampler."""

from ..sampler import AnnSampler

__all__ = ["AnnSampler"]
