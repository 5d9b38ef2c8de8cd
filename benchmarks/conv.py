"""One training step of a small CNN on static images 28 x 28, batch 64, T = 8.

1-16-32 channels, 3 x 3, average pooling, 128 hidden neurons. Contenders and ratios are those of
`benchmarks/step.py`, which does the same for an MLP.
"""

from __future__ import annotations

import torch
from common import arguments
from networks import GAIN, cnn
from step import compare


def main() -> None:
    options = arguments(__doc__)
    size, widths, batch, time_steps = 28, (16, 32, 128), 64, 8
    if options.quick:
        size, widths, batch, time_steps = 8, (4, 4, 16), 8, 4
    torch.manual_seed(0)
    x = torch.rand(batch, 1, size, size)
    compare(options, cnn(size, widths), x, time_steps, gain=GAIN, size=size, widths=widths)


if __name__ == "__main__":
    main()
