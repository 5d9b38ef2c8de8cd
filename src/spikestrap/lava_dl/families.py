"""The neurons of lava-dl's blocks, and where spikestrap has blocks of them."""

from .. import block
from .surface import Family

CUBA = Family(block.cuba, learnable=("current_decay", "voltage_decay"), on_chip=True)
