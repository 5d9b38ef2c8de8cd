"""Random affine transforms of images, a batch at a time."""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class RandomAffine:
    """Turns, scales, shears and shifts each image of a batch at random; all strengths 0: identity.

    Each strength bounds a uniform draw, one an image and effect. Pixels from outside are 0.

    Attributes:
        degrees: largest rotation to either side, in degrees.
        scale: largest relative change of size, below 1: 0.1 is 0.9 to 1.1.
        shear: largest shear along x, to either side, in degrees.
        shift: largest shift along x and y, in pixels.

    >>> x = torch.rand(2, 1, 8, 8)
    >>> RandomAffine(degrees=10, shift=1)(x, torch.Generator()).shape
    torch.Size([2, 1, 8, 8])
    """

    degrees: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    shift: float = 0.0

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Transform a batch.

        Args:
            x: (N, C, H, W).
            generator: what the draws come from; on the CPU, so that they are the same on every
                device.

        Returns:
            (N, C, H, W), within the range of ``x`` and 0.
        """
        return self.apply(x, self.draw(len(x), generator))

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """The draws (n, 5) in [-1, 1] of n images: turn, scale, shear, shift along x and y."""
        return 2 * torch.rand(n, 5, generator=generator) - 1

    def apply(self, x: Tensor, draw: Tensor) -> Tensor:
        """Transform x (N, C, H, W) by what was drawn (N, 5)."""
        n, _, height, width = x.shape
        maps = self._maps(draw, height, width).to(x)
        # All grids in one matrix product: some ten times faster than F.affine_grid, which
        # multiplies one small matrix an image.
        grid = (maps.view(2 * n, 3) @ _pixels(height, width).to(x)).view(n, 2, height, width)
        return F.grid_sample(x, grid.permute(0, 2, 3, 1), align_corners=False)

    def _maps(self, draw: Tensor, height: int, width: int) -> Tensor:
        """Affine maps (N, 2, 3) from the target's coordinates in [-1, 1] to the source's."""
        strength = torch.tensor(
            (math.radians(self.degrees), self.scale, math.radians(self.shear), *2 * (self.shift,))
        )
        turn, scale, shear, shift_x, shift_y = (draw * strength).unbind(1)
        cos, sin, tan = turn.cos(), turn.sin(), shear.tan()
        aspect = height / width  # the coordinates span [-1, 1] on both axes, the pixels need not
        to_x = (cos, (cos * tan - sin) * aspect, 2 * shift_x / width)
        to_y = (sin / aspect, sin * tan + cos, 2 * shift_y / height)
        maps = torch.stack((*to_x, *to_y), dim=1).view(-1, 2, 3)
        maps[:, :, :2] /= (1 + scale).view(-1, 1, 1)
        return maps


@lru_cache
def _pixels(height: int, width: int) -> Tensor:
    """Homogeneous coordinates (3, H*W) of the pixels' centres, in [-1, 1]."""
    y = (2 * torch.arange(height) + 1) / height - 1
    x = (2 * torch.arange(width) + 1) / width - 1
    grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack((grid_x, grid_y, torch.ones(height, width))).view(3, -1)
