"""Files of lava-dl, and the spikes that Lava computed for them."""

import numpy as np
import pytest
from tests.shared import GOLDEN, MNIST, needs_golden

from spikestrap import fixed
from spikestrap.exchange import netx
from spikestrap.train import mnist

pytestmark = needs_golden

RESET_INTERVAL = 17


@pytest.fixture(scope="module")
def pilotnet():
    net = netx.read(GOLDEN / "pilotnet_lif/network.net")
    with np.load(GOLDEN / "pilotnet_lif/traces.npz") as file:
        # (W, H, C, T) to (T, N, C, H, W).
        traces = {name: file[name].transpose(3, 2, 1, 0)[:, None] for name in file}
    return net, traces


def one_step_late(spikes):
    return np.concatenate([np.zeros_like(spikes[:1]), spikes[:-1]])


@pytest.mark.parametrize("number", [1, 2, 3])
def test_each_convolution_of_pilotnet_on_the_true_spikes_before_it(pilotnet, number):
    net, traces = pilotnet
    before = traces["input" if number == 1 else f"conv-{number - 2}"]
    steps = range(number, len(before), RESET_INTERVAL)
    spikes, currents = fixed.run_layer(net.layers[number], one_step_late(before), zero_before=steps)
    assert np.count_nonzero(spikes != traces[f"conv-{number - 1}"]) == 0
    if f"conv-{number - 1}-u" in traces:
        assert np.array_equal(currents, traces[f"conv-{number - 1}-u"])


def test_pilotnet_as_a_chain_from_the_input(pilotnet):
    net, traces = pilotnet
    entry = fixed.Input((3, 66, 200), delay=np.array(1))
    chain = fixed.Network([entry, *net.layers[1:4]], pipelined=True)
    spikes = chain.spikes(traces["input"], 24, reset_interval=RESET_INTERVAL)
    for number in (1, 2, 3):
        # What a layer hands on is one step late.
        expected = one_step_late(traces[f"conv-{number - 1}"])
        assert np.count_nonzero(spikes[number] != expected) == 0


def test_the_rest_of_pilotnet_runs():
    net = netx.read(GOLDEN / "pilotnet_lif/network.net")
    shapes = [layer.shape for layer in net.layers]
    assert shapes[:6] == [(3, 66, 200), (24, 32, 99), (36, 15, 49), (48, 7, 24), (64, 4, 22)] + [
        (64, 2, 20)
    ]
    assert shapes[6:] == [(2560,), (100,), (50,), (10,), (1,)]
    result = net.run(np.random.default_rng(0).random((1, 3, 66, 200)), 8)
    assert result.logits.shape == (1, 1)
    assert result.event_rate > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("time_steps", "accuracy"), [(2, 98.64), (4, 99.13), (8, 99.22), (None, 99.17)]
)
def test_lava_dls_mnist_network_on_all_test_images(time_steps, accuracy):
    net, test = netx.read(GOLDEN / "bootstrap_mnist.net"), mnist(MNIST).test
    assert net.time_steps == 16
    right = net.run(test.x, time_steps).logits.argmax(1) == test.y.numpy()
    assert 100 * right.mean() == pytest.approx(accuracy)
