"""Transfer curves: sample (mean input, rate), fit, run as an activation.

histogram: the statistics. fit: statistics to curve. sampler: both as a torch module.
"""

from .sampler import SCOPES, SLOPES, AnnSampler

__all__ = ["SCOPES", "SLOPES", "AnnSampler"]
