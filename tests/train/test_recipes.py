from dataclasses import replace
from itertools import pairwise

import pytest
import torch

import spikestrap as ss
from spikestrap.train.data import SHAPES, Arrays, Splits
from spikestrap.train.loop import fit
from spikestrap.train.models import vgg
from spikestrap.train.recipes import RECIPES, recipe

# Too large for more than what is asked of them below.
FOR_A_GPU = ("cifar10-resnet18", "cifar10-vgg16")
SMALL = {name: entry for name, entry in RECIPES.items() if name not in FOR_A_GPU}


@pytest.mark.parametrize("entry", SMALL.values(), ids=list(SMALL))
@pytest.mark.parametrize("time_steps", [None, 1, 3])
def test_the_network_takes_the_datas_images_in_every_mode(entry, time_steps):
    net = entry.network(time_steps)
    steps = time_steps or entry.time_steps
    x = torch.rand(5, *SHAPES[entry.data])
    if entry.temporal:
        assert net.time_steps is None
        x = torch.poisson(torch.ones(steps, *x.shape))
    else:
        assert net.time_steps == steps
    for mode in (ss.Mode.SNN, ss.Mode.SAMPLE, ss.Mode.FIT, ss.Mode.ANN):
        logits = net(x, mode)
        assert logits.shape == (5, 10)
        assert logits.isfinite().all()


# Two images a step and one time step: what a CPU takes little time for.
@pytest.mark.parametrize(("name", "steps"), [("cifar10-resnet18", 20), ("cifar10-vgg16", 3)])
def test_a_recipe_for_a_gpu_trains_for_some_steps_on_the_cpu(name, steps):
    entry = RECIPES[name]
    options = replace(entry.options, epochs=1, batch_size=2, num_sample_iter=1, snn_epochs=0)
    torch.manual_seed(0)
    net = entry.network(time_steps=1)
    x = torch.rand(2 * steps, *SHAPES[entry.data])
    images = Arrays(x, torch.arange(len(x)) % 10)
    one = Arrays(images.x[:1], images.y[:1])
    before = [parameter.clone() for parameter in net.parameters()]
    history = fit(net, Splits(entry.data, 10, images, one, one), options)
    assert history.epochs[0].steps == {"sample": 1, "fit": 1, "ann": steps - 2}
    assert history.epochs[0].ann_accuracy is not None
    for old, new in zip(before, net.parameters(), strict=True):
        assert not old.equal(new)


def test_resnet18_and_vgg16_have_the_published_layers():
    """Parameters, counted from the papers' tables for 32 x 32 images and 10 classes."""

    def conv(fan_in, out, size=3):
        return fan_in * out * size**2 + 2 * out  # weights, and weight and bias of the norm

    resnet = conv(3, 64) + 10 * (512 + 1)
    for width, narrower in ((64, 64), (128, 64), (256, 128), (512, 256)):
        resnet += conv(narrower, width) + 3 * conv(width, width)
        resnet += conv(narrower, width, 1) if width > narrower else 0
    widths = [3, 64, 64, 128, 128, *3 * [256], *6 * [512]]
    vgg = sum(conv(*pair) for pair in pairwise(widths)) + 10 * (512 + 1)
    for name, expected in zip(FOR_A_GPU, (resnet, vgg), strict=True):
        net = RECIPES[name].network()
        assert sum(parameter.numel() for parameter in net.parameters()) == expected


def test_of_pooled_spikes_only_those_read_out_are_weighted():
    net = RECIPES["cifar10-cnn"].network()
    pools = [module for module in net.blocks if isinstance(module, ss.block.AvgPool)]
    threshold = net.blocks[0].unit.neuron.threshold.item()  # what a spike counts as
    factors = [pool.pooling.factor for pool in pools]
    assert factors == pytest.approx([1 / 4, 1 / 4, 2 * threshold / 4])


@pytest.mark.parametrize("name", RECIPES)
def test_found_by_name(name):
    assert recipe(name).name == name


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("digit-mlp", "did you mean 'digits-mlp'?"),
        ("mnist_cnn", "did you mean 'mnist-cnn'?"),
        ("", "got ''"),
        ("zzz", "got 'zzz'"),
    ],
)
def test_an_unknown_name_gets_the_list_and_the_nearest(name, hint):
    with pytest.raises(ss.SpikestrapError) as caught:
        recipe(name)
    assert str(caught.value).endswith(hint)
    assert all(known in str(caught.value) for known in RECIPES)


@pytest.mark.parametrize("time_steps", [0, -1, 1025, 2.0, "4"])
def test_time_steps_out_of_range(time_steps):
    with pytest.raises(ss.SpikestrapError, match="time_steps must be a whole number from 1 to 10"):
        recipe("digits-mlp").network(time_steps)


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
def test_of_a_vgg_the_first_kernel_has_a_size_of_its_own(kernel):
    net = vgg((2, 8, 6), ((3, 4), (5,)), first_kernel=kernel)(2, "float")
    convolutions = [b for b in net.blocks if isinstance(b, ss.block.cuba.Conv)]
    sides = [tuple(b.synapse.layer.weight.shape[2:]) for b in convolutions]
    assert sides == [(kernel, kernel), (3, 3), (3, 3)]
    x = torch.rand(2, 2, 2, 8, 6)
    assert convolutions[0](x, ss.Mode.SNN).shape == (2, 2, 3, 8, 6)  # as large as the image
    assert net(x[0]).shape == (2, 10)
