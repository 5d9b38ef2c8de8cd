import pytest
import torch

import spikestrap as ss
from spikestrap.train.recipes import RECIPES, recipe

SHAPES = {"digits": (1, 8, 8), "mnist": (1, 28, 28)}


@pytest.mark.parametrize("entry", RECIPES.values(), ids=list(RECIPES))
@pytest.mark.parametrize("time_steps", [None, 1, 3])
def test_the_network_takes_the_datas_images_in_every_mode(entry, time_steps):
    net = entry.network(time_steps)
    assert net.time_steps == (time_steps or entry.time_steps)
    x = torch.rand(5, *SHAPES[entry.data])
    for mode in (ss.Mode.SNN, ss.Mode.SAMPLE, ss.Mode.FIT, ss.Mode.ANN):
        logits = net(x, mode)
        assert logits.shape == (5, 10)
        assert logits.isfinite().all()


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
    with pytest.raises(ss.SpikestrapError, match="time_steps: expected an integer from 1 to 1024"):
        recipe("digits-mlp").network(time_steps)
