"""Random transforms of images, a batch at a time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Augment(Protocol):
    """A random transform of images; a frozen dataclass, so that a run can say what it was.

    Drawing and applying are apart, so that processes that share a batch draw for all of it.
    """

    def draw(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """What is random about images of shape (N, C, H, W): a row for each, (N, K)."""

    def apply(self, x: Tensor, draw: Tensor) -> Tensor:
        """Images (N, C, H, W) to others of that shape, by what was drawn (N, K)."""


@dataclass(frozen=True)
class RandomWarp:
    """Turns, scales, shears, shifts and bends each image at random; all strengths 0: identity.

    The first four bound a uniform draw, one an image and effect. The bending moves each pixel
    along a smooth random field, as in Simard et al. (ICDAR 2003), whose sigma = 4, alpha = 34
    are 1.4 pixels of ``elastic`` here. All of it is one resampling. Pixels from outside are 0.

    Attributes:
        degrees: largest rotation to either side, in degrees.
        scale: largest relative change of size, below 1: 0.1 is 0.9 to 1.1.
        shear: largest shear along x, to either side, in degrees.
        shift: largest shift along x and y, in pixels.
        elastic: standard deviation of each pixel's displacement along x and y, in pixels.
        smoothness: standard deviation of the Gaussian that smooths the displacements, in pixels.

    >>> x = torch.rand(2, 1, 8, 8)
    >>> RandomWarp(degrees=10, shift=1, elastic=0.5)(x, torch.Generator()).shape
    torch.Size([2, 1, 8, 8])
    """

    degrees: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    shift: float = 0.0
    elastic: float = 0.0
    smoothness: float = 4.0

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Transform a batch.

        Args:
            x: (N, C, H, W).
            generator: what the draws come from; on the CPU, so that they are the same on every
                device.

        Returns:
            (N, C, H, W), within the range of ``x`` and 0.
        """
        return self.apply(x, self.draw(x.shape, generator))

    def draw(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """Turn, scale, shear, shift along x and y in [-1, 1]; then heights of the bumps, normal."""
        n, _, height, width = shape
        uniform = 2 * torch.rand(n, 5, generator=generator) - 1
        if not self.elastic:
            return uniform
        # Bumps at coarse points instead of noise at each pixel: some two hundred an image.
        down, across = (_bumps(size, self.smoothness) for size in (height, width))
        heights = torch.randn(n, 2 * down.shape[1] * across.shape[1], generator=generator)
        return torch.cat((uniform, heights), dim=1)

    def apply(self, x: Tensor, draw: Tensor) -> Tensor:
        """Transform x (N, C, H, W) by what was drawn (N, K)."""
        n, _, height, width = x.shape
        maps = self._maps(draw[:, :5], height, width).to(x)
        # All grids in one matrix product: some ten times faster than F.affine_grid, which
        # multiplies one small matrix an image.
        grid = maps.view(2 * n, 3) @ _pixels(height, width).to(x)
        if self.elastic:
            left, right = self._bend(draw[:, 5:], height, width)
            grid = torch.addmm(grid.view(-1, width), left.to(x), right.to(x))
        grid = grid.view(n, 2, height, width).permute(0, 2, 3, 1)
        return F.grid_sample(x, grid, align_corners=False)

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

    def _bend(self, draw: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Displacements along x and y in coordinates of [-1, 1], (2 N H, W), as two factors."""
        down, across = (_bumps(size, self.smoothness) for size in (height, width))
        strength = self.elastic * torch.tensor((2 / width, 2 / height)).view(2, 1, 1)
        heights = draw.reshape(-1, 2, down.shape[1], across.shape[1]) * strength
        # Again one product for all images, (2 N K, K) by (K, H), and not one each.
        left = heights.flatten(0, 1).transpose(1, 2) @ down.T
        return left.transpose(1, 2).reshape(-1, across.shape[1]), across.T


@dataclass(frozen=True)
class RandomCrop:
    """Shifts each image by whole pixels, mirrors every other one, and blanks out a square.

    What is usual for CIFAR-10: padding 4 and mirroring (He et al., CVPR 2016), and cutout
    (DeVries and Taylor, 2017). Pixels from outside, and those cut out, are 0.

    Attributes:
        padding: largest shift along x and y, in pixels.
        mirror: whether to mirror left and right, with probability 1/2.
        cutout: side of the square that is blanked out, in pixels; its centre lies anywhere.

    >>> x = torch.rand(2, 3, 32, 32)
    >>> RandomCrop(padding=4, mirror=True)(x, torch.Generator()).shape
    torch.Size([2, 3, 32, 32])
    """

    padding: int = 0
    mirror: bool = False
    cutout: int = 0

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Transform a batch; see `RandomWarp`."""
        return self.apply(x, self.draw(x.shape, generator))

    def draw(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """Shift down and across, mirror, the cut's place down and across: (N, 5) in [0, 1)."""
        return torch.rand(shape[0], 5, generator=generator)

    def apply(self, x: Tensor, draw: Tensor) -> Tensor:
        """Transform x (N, C, H, W) by what was drawn (N, 5)."""
        n, channels, height, width = x.shape
        shifts = (draw[:, :2] * (2 * self.padding + 1)).long()
        rows = torch.arange(height) + shifts[:, :1]
        columns = torch.arange(width) + shifts[:, 1:]
        if self.mirror:
            flipped = draw[:, 2:3] < 0.5
            columns = torch.where(flipped, width - 1 + 2 * self.padding - columns, columns)
        padded = F.pad(x, 4 * (self.padding,))
        # One look-up for all images: each has its own rows and columns.
        at = rows[:, :, None] * padded.shape[3] + columns[:, None, :]
        at = at.view(n, 1, -1).expand(-1, channels, -1).to(x.device)
        y = padded.flatten(2).gather(2, at).view_as(x)
        return y * self._kept(draw[:, 3:], height, width).to(x) if self.cutout else y

    def _kept(self, draw: Tensor, height: int, width: int) -> Tensor:
        """A mask (N, 1, H, W): 0 in the square, 1 elsewhere."""
        cut = []
        for axis, size in enumerate((height, width)):
            start = (draw[:, axis : axis + 1] * size).long() - self.cutout // 2
            place = torch.arange(size)
            cut.append((place >= start) & (place < start + self.cutout))
        return ~(cut[0][:, :, None] & cut[1][:, None, :]).unsqueeze(1)


@lru_cache
def _pixels(height: int, width: int) -> Tensor:
    """Homogeneous coordinates (3, H*W) of the pixels' centres, in [-1, 1]."""
    y = (2 * torch.arange(height) + 1) / height - 1
    x = (2 * torch.arange(width) + 1) / width - 1
    grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack((grid_x, grid_y, torch.ones(height, width))).view(3, -1)


@lru_cache
def _bumps(size: int, sigma: float) -> Tensor:
    """Gaussian bumps (size, K), one every sigma, as seen from each pixel.

    Rows have length 1, so that bumps of random height of variance 1 add up to just that.
    """
    centres = torch.arange(-sigma, size + 1.5 * sigma, sigma)
    pixels = torch.arange(size) + 0.5
    bumps = torch.exp(-((pixels[:, None] - centres) ** 2) / (2 * sigma**2))
    return bumps / bumps.norm(dim=1, keepdim=True)
