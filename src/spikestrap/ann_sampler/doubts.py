"""Warnings of a fit: what was sampled of a layer that no curve makes good."""

from __future__ import annotations

import numpy as np

from ..errors import warn
from .fit import Array, misfit_by_fall

# From here on rates that fall are warned of. Those of alike neurons of any kind here, on random
# inputs, stay below 0.03; those that fall with the mean from 1 to 0 come to 0.3.
_FALL = 0.1


def warn_if_constant(sums: Array, layer: str, time_steps: int, has_v_init: bool) -> None:
    """Warns where the sums (4, bins) are of a layer that never spiked, or always did."""
    count, z, spikes, _ = sums
    if spikes.sum() == 0:
        last = np.flatnonzero(count)[-1]
        start = "set v_init, " if has_v_init else ""
        warn(
            f"{layer} never spiked in {count.sum():.0f} samples of T = {time_steps} steps "
            f"(largest mean input {z[last] / count[last]:g}): lower the threshold, raise the "
            f"weights, {start}or take more time steps"
        )
    elif spikes.sum() == count.sum():
        warn(
            f"{layer} spiked at every one of T = {time_steps} steps in {count.sum():.0f} "
            "samples: raise the threshold or lower the weights"
        )


def warn_if_falling(sums: Array, layer: str, per: str) -> None:
    """Warns where the rates of the curves' sums (channels, 4, bins) fall with the mean input."""
    pairs = sums[:, 0].sum(-1)
    falls = [misfit_by_fall(channel) for channel in sums[pairs > 0]]
    fall = np.average(np.square(falls), weights=pairs[pairs > 0]) ** 0.5
    if fall > _FALL:
        differ = ', or, where they differ, set per="channel"' if per == "layer" else ""
        warn(
            f"{layer} spikes less where its mean input is larger, and a curve only "
            f"rises: it misses the rates by {fall:.2f} in the mean; negate the input of such "
            f"neurons{differ}"
        )
