"""Transfer curves: sample (mean input, rate), fit, run as an activation.

histogram, statistics: what was sampled, as sums. fit: sums to curve. beyond, idle: what goes on
where samples show no slope. scope: whether channels have a curve each. doubts: what a fit warns of.
sampler: all of it as a torch module.
"""

from .sampler import SCOPES, SLOPES, AnnSampler

__all__ = ["SCOPES", "SLOPES", "AnnSampler"]
