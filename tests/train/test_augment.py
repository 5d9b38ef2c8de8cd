import pytest
import torch

from spikestrap.train.augment import RandomAffine

ALL = RandomAffine(degrees=20, scale=0.2, shear=10, shift=3)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", [(5, 1, 28, 28), (3, 2, 8, 12), (1, 1, 1, 1)])
def test_no_strength_is_the_identity(shape):
    x = torch.rand(shape)
    torch.testing.assert_close(RandomAffine()(x, generator()), x, atol=1e-5, rtol=0)


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
    y = RandomAffine(shift=2)(x, generator())
    rows = (y.sum((1, 3)) * torch.arange(9)).sum(1)
    columns = (y.sum((1, 2)) * torch.arange(15)).sum(1)
    for moved in (rows - 4, columns - 7):
        assert moved.abs().max() <= 2 + 1e-4
        assert moved.min() < -1.5
        assert moved.max() > 1.5


def test_a_rotation_keeps_distances_also_where_pixels_are_not_square():
    x = torch.zeros(100, 1, 21, 41)
    x[:, :, 10, 26] = 1  # 6 pixels right of the centre
    y = RandomAffine(degrees=90)(x, generator())
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
    area = RandomAffine(scale=0.3)(x, generator()).sum((1, 2, 3)) / 121
    assert area.min() > 0.7**2 - 0.05
    assert area.max() < 1.3**2 + 0.05
    assert area.max() - area.min() > 0.8
