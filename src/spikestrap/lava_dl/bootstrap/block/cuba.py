"""Blocks of CUBA neurons that bootstrap: ANN is the mode unless told otherwise."""

from ...bind import bind
from ...families import CUBA
from ...missing import missing

__all__ = ["Affine", "Average", "Conv", "Dense", "Flatten", "Input", "Pool"]

Input, Dense, Conv, Pool, Flatten, Affine, Average = bind(CUBA, __name__, direct=False)

__getattr__ = missing(
    __name__,
    {
        "ConvT": "a chip has none; spikestrap.block.cuba.ConvT is float, time first",
        "Recurrent": "its rate is no function of its mean input; "
        "slayer.block.cuba.Recurrent trains directly",
        "Unpool": "spikestrap.block.Upsample repeats pixels, time first",
    },
)
