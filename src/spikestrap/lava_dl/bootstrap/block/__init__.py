"""lava.lib.dl.bootstrap.block: blocks of CUBA neurons, on the chip's numbers in every mode."""

from . import base, cuba

__all__ = ["base", "cuba"]
