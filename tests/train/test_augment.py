import math

import pytest
import torch

from spikestrap.train.augment import RandomCrop, RandomWarp

ALL = RandomWarp(degrees=20, scale=0.2, shear=10, shift=3)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", [(5, 1, 28, 28), (3, 2, 8, 12), (1, 1, 1, 1)])
def test_no_strength_is_the_identity(shape):
    x = torch.rand(shape)
    torch.testing.assert_close(RandomWarp()(x, generator()), x, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(5, 1, 28, 28), (3, 2, 8, 12)])
def test_keeps_shape_and_range(shape):
    x = torch.rand(shape)
    y = ALL(x, generator())
    assert y.shape == shape
    assert y.min() >= 0
    assert y.max() <= x.max() + 1e-6
    assert not torch.allclose(x, y, atol=0.1)


def test_the_generator_decides():
    x = torch.rand(4, 1, 28, 28)
    assert ALL(x, generator(1)).equal(ALL(x, generator(1)))
    assert not ALL(x, generator(1)).equal(ALL(x, generator(2)))


def test_each_image_has_its_own():
    x = torch.rand(1, 1, 28, 28).repeat(2, 1, 1, 1)
    first, second = ALL(x, generator())
    assert not first.equal(second)


def test_a_shift_moves_by_pixels():
    x = torch.zeros(200, 1, 9, 15)
    x[:, :, 4, 7] = 1
    y = RandomWarp(shift=2)(x, generator())
    rows = (y.sum((1, 3)) * torch.arange(9)).sum(1)
    columns = (y.sum((1, 2)) * torch.arange(15)).sum(1)
    for moved in (rows - 4, columns - 7):
        assert moved.abs().max() <= 2 + 1e-4
        assert moved.min() < -1.5
        assert moved.max() > 1.5


def test_a_rotation_keeps_distances_also_where_pixels_are_not_square():
    x = torch.zeros(100, 1, 21, 41)
    x[:, :, 10, 26] = 1  # 6 pixels right of the centre
    y = RandomWarp(degrees=90)(x, generator())
    weight = y / y.sum((1, 2, 3), keepdim=True)
    row = (weight.sum((1, 3)) * torch.arange(21)).sum(1) - 10
    column = (weight.sum((1, 2)) * torch.arange(41)).sum(1) - 20
    torch.testing.assert_close(
        (row**2 + column**2).sqrt(), torch.full((100,), 6.0), atol=0.3, rtol=0
    )
    assert row.abs().max() > 5


def test_scale_changes_the_size():
    x = torch.zeros(200, 1, 31, 31)
    x[:, :, 10:21, 10:21] = 1
    area = RandomWarp(scale=0.3)(x, generator()).sum((1, 2, 3)) / 121
    assert area.min() > 0.7**2 - 0.05
    assert area.max() < 1.3**2 + 0.05
    assert area.max() - area.min() > 0.8


def ramps(n, side):
    """Images whose two channels are each pixel's column and row."""
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return torch.stack((column, row)).float().expand(n, -1, -1, -1)


def displacements(warp, n=300, side=40, margin=8):
    """By how much each pixel moved along x and y, where nothing came from outside."""
    x = ramps(n, side)
    inner = slice(margin, side - margin)
    return (warp(x, generator()) - x)[:, :, inner, inner]


@pytest.mark.parametrize("smoothness", [3.0, 5.0])
def test_bending_moves_pixels_by_as_much_as_it_says_and_neighbours_alike(smoothness):
    moved = displacements(RandomWarp(elastic=1.5, smoothness=smoothness))
    assert abs(moved.mean().item()) < 0.15
    assert moved.std().item() == pytest.approx(1.5, rel=0.05)
    for distance in (2, 6):
        product = (moved[..., distance:] * moved[..., :-distance]).mean()
        # White noise, smoothed by a Gaussian: its correlation is one of sqrt(2) the width.
        expected = math.exp(-(distance**2) / (4 * smoothness**2))
        assert (product / moved.var()).item() == pytest.approx(expected, abs=0.05)


def test_bending_goes_along_both_axes_apart():
    moved = displacements(RandomWarp(elastic=1.0))
    along_x, along_y = moved[:, 0], moved[:, 1]
    assert along_x.std().item() == pytest.approx(along_y.std().item(), rel=0.1)
    assert abs((along_x * along_y).mean().item()) < 0.1


class TestCrop:
    @pytest.mark.parametrize("mirror", [False, True])
    def test_each_image_is_one_of_all_possible(self, mirror):
        x = torch.rand(40, 2, 5, 6) + 0.1
        y = RandomCrop(padding=1, mirror=mirror)(x, generator())
        seen = set()
        for image, got in zip(x, y, strict=True):
            padded = torch.nn.functional.pad(image, (1, 1, 1, 1))
            windows = {
                (top, left, flip): (window.flip(2) if flip else window)
                for top in range(3)
                for left in range(3)
                for flip in range(1 + mirror)
                for window in [padded[:, top : top + 5, left : left + 6]]
            }
            (found,) = [place for place, window in windows.items() if window.equal(got)]
            seen.add(found)
        assert len(seen) > len(windows) / 2

    def test_nothing_asked_nothing_done(self):
        x = torch.rand(3, 1, 4, 4)
        assert RandomCrop()(x, generator()).equal(x)

    def test_cutout_blanks_one_square(self):
        y = RandomCrop(cutout=4)(torch.ones(200, 3, 12, 10), generator())
        assert y[:, 0].equal(y[:, 2])
        gone = y[:, 0] == 0
        assert gone.sum((1, 2)).max() == 16
        assert gone.sum((1, 2)).min() >= 4  # at a corner a quarter of it is left
        assert gone.any(0).all()  # it lies anywhere
        rows, columns = gone.any(2), gone.any(1)
        assert (rows.sum(1) * columns.sum(1)).equal(gone.sum((1, 2)))

    def test_the_generator_decides(self):
        x = torch.rand(8, 1, 9, 9)
        crop = RandomCrop(padding=2, mirror=True, cutout=3)
        assert crop(x, generator(1)).equal(crop(x, generator(1)))
        assert not crop(x, generator(1)).equal(crop(x, generator(2)))
