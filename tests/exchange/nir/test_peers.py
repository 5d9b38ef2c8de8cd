"""What other libraries make of our graphs: docs/nir.md's statements, one by one."""

import nir
import norse.torch as norse
import numpy as np
import pytest
import snntorch
import snntorch.utils
import torch
from sklearn.datasets import load_digits
from snntorch import import_nir
from spikingjelly.activation_based import nir_exchange

import spikestrap as ss
from spikestrap import block
from spikestrap.exchange import nir as exchange

# nirtorch.load, which Norse uses, is deprecated; snnTorch warns of what it scales.
pytestmark = pytest.mark.filterwarnings("ignore")
TIME_STEPS = 8
NEURONS = {
    "LIF": {"threshold": 1.0, "voltage_decay": 0.1},
    "CUBA": {"threshold": 1.0, "current_decay": 0.3, "voltage_decay": 0.1},
    "IF": {"threshold": 1.0, "voltage_decay": 0.0},
}


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    return torch.tensor(data.data / 16, dtype=torch.float32), torch.tensor(data.target)


@pytest.fixture(scope="module")
def trained(digits):
    images, labels = digits

    def train(neuron):
        torch.manual_seed(0)
        net = ss.Network(
            block.cuba.Dense(neuron, 64, 48, bias=True),
            block.cuba.Dense(neuron, 48, 32, bias=True),
            block.cuba.Affine(neuron, 32, 10),
            time_steps=TIME_STEPS,
        )
        scheduler = ss.Scheduler(num_sample_iter=2, sample_period=1)
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
        for epoch in range(3):
            for i, (x, y) in enumerate(zip(images.split(128), labels.split(128), strict=True)):
                logits = net(x, scheduler.mode(epoch, i))
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(logits, y).backward()
                optimizer.step()
        return net.eval()

    nets = {name: train(neuron) for name, neuron in NEURONS.items()}
    for net in nets.values():
        assert (net(images).argmax(1) == labels).float().mean() > 0.7
    return nets


def readouts(net, x):
    """The readout of every step (T, N, 10): as many numbers as there are patterns of spikes."""
    spikes = []
    handle = net.blocks[1].unit.register_forward_hook(lambda *args: spikes.append(args[2]))
    net(x)
    handle.remove()
    return net.blocks[2].synapse(spikes[0]).detach()


@torch.no_grad()
def steps(model, x):
    state, found = None, []
    for _ in range(TIME_STEPS):
        output, state = model(x, state)
        found.append(output)
    return torch.stack(found)


def snn_torch(graph):
    snntorch.SpikingNeuron.instances = []
    return import_nir.import_from_nir(graph)


def spiking_jelly(graph, dt=1e-4):
    return nir_exchange.import_from_nir(graph, dt=dt)


def norse_(graph, dt=1e-4):
    return norse.from_nir(graph, dt=dt)


def multiplied_by_r(graph):
    for source, target in graph.edges:
        if isinstance(graph.nodes[target], nir.LIF):
            before, r = graph.nodes[source], graph.nodes[target].r.astype(np.float32)
            before.weight, before.bias = before.weight * r[:, None], before.bias * r
    return graph


def same(graph):
    return graph


@pytest.mark.parametrize(
    ("name", "load", "correct"),
    [
        ("LIF", snn_torch, same),
        ("CUBA", snn_torch, same),
        ("LIF", spiking_jelly, same),
        ("CUBA", spiking_jelly, same),
        ("IF", spiking_jelly, same),
        ("LIF", norse_, multiplied_by_r),
        ("CUBA", norse_, same),
        ("IF", norse_, same),
    ],
)
def test_equal_spikes_on_digits(name, load, correct, trained, digits):
    net, x = trained[name], digits[0][:300]
    expected = readouts(net, x)
    got = steps(load(correct(exchange.to_graph(net))), x)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
    assert expected.std(0).max() > 0.1  # it is not all one step


@pytest.mark.parametrize("load", [spiking_jelly, norse_])
def test_dt_is_an_option_of_theirs(load, trained, digits):
    net, x = trained["CUBA"], digits[0][:100]
    got = steps(load(exchange.to_graph(net, dt=1e-3), dt=1e-3), x)
    torch.testing.assert_close(got, readouts(net, x), atol=1e-4, rtol=1e-4)


def test_norse_ignores_the_r_of_a_lif(trained, digits):
    net, x = trained["LIF"], digits[0][:100]
    got = steps(norse_(exchange.to_graph(net)), x)
    assert (got - readouts(net, x)).abs().max() > 0.1


def test_snn_torch_knows_one_dt(trained, digits):
    with pytest.raises(AssertionError, match="r not supported"):
        snn_torch(exchange.to_graph(trained["CUBA"], dt=1e-3))
    model = snn_torch(exchange.to_graph(trained["LIF"], dt=1e-3))
    leaky = next(m for m in model.modules() if isinstance(m, snntorch.Leaky))
    torch.testing.assert_close(leaky.beta, torch.full_like(leaky.beta, 0.99))  # not 0.9


def test_snn_torch_has_no_if(trained):
    graph = exchange.to_graph(trained["IF"])
    with pytest.raises(AssertionError, match="r != 1 not supported"):
        snn_torch(graph)
    for node in graph.nodes.values():
        if isinstance(node, nir.IF):
            node.r = np.ones_like(node.r)
    leaky = next(m for m in snn_torch(graph).modules() if isinstance(m, snntorch.Leaky))
    assert leaky.beta.item() == pytest.approx(0.9)
    assert leaky.reset_mechanism == "subtract"


def tie():
    """An input of 1/2 that is at the threshold of 1 after two steps, exactly."""
    net = ss.Network(
        block.lif.Dense({"threshold": 0.75, "voltage_decay": 0.5}, 1, 1, bias=True),
        time_steps=TIME_STEPS,
    )
    with torch.no_grad():
        net.blocks[0].synapse.layer.weight.fill_(1.0)
        net.blocks[0].synapse.layer.bias.fill_(0.0)
    return net, torch.full((1, 1), 0.5)


def test_spiking_jelly_fires_at_a_tie():
    net, x = tie()
    with torch.no_grad():
        spikes = net(x) * TIME_STEPS
    graph = exchange.to_graph(net)
    assert steps(spiking_jelly(graph), x).sum() == 4  # at every second step
    assert steps(norse_(multiplied_by_r(exchange.to_graph(net))), x).sum() == spikes.sum()
    assert steps(snn_torch(exchange.to_graph(net)), x).sum() == spikes.sum()
    for node in graph.nodes.values():
        if hasattr(node, "v_threshold"):
            node.v_threshold = np.nextafter(node.v_threshold.astype("f4"), np.float32(np.inf))
    assert steps(spiking_jelly(graph), x).sum() == spikes.sum() < 4


def test_spiking_jelly_wants_a_membrane_that_remembers():
    net = ss.Network(block.lif.Dense({"threshold": 1.0, "voltage_decay": 1.0}, 2, 2))
    with pytest.raises(ValueError, match="greater than 1"):
        spiking_jelly(exchange.to_graph(net))


@pytest.mark.parametrize("load", [snn_torch, spiking_jelly])
def test_none_has_scale(load):
    net = ss.Network(block.lif.Input({"threshold": 1.0, "voltage_decay": 0.5}))
    with pytest.raises(ValueError, match="Scale"):
        load(exchange.to_graph(net, input_shape=(3,)))


def images_graph():
    neuron = {"threshold": 0.5, "voltage_decay": 0.1}
    net = ss.Network(
        block.lif.Conv(neuron, 1, 2, 3, bias=True),
        block.Flatten(),
        block.lif.Affine(neuron, 2 * 6 * 6, 10),
        time_steps=TIME_STEPS,
    )
    return net, exchange.to_graph(net, input_shape=(1, 8, 8))


@pytest.mark.parametrize("load", [snn_torch, spiking_jelly, norse_])
def test_flatten(load, digits):
    net, graph = images_graph()
    x = digits[0][:50].view(-1, 1, 8, 8) * 3
    if load is not spiking_jelly:
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            steps(load(graph), x)
        graph.nodes["block1_flatten"].start_dim = 1
    if load is norse_:
        conv = graph.nodes["block0_conv2d"]
        conv.weight, conv.bias = 10 * conv.weight, 10 * conv.bias
    torch.testing.assert_close(steps(load(graph), x).mean(0), net(x), atol=1e-4, rtol=1e-4)


def test_nir_infers_wrong_shapes_for_groups(tmp_path):
    neuron = {"threshold": 0.5, "voltage_decay": 0.1}
    net = ss.Network(block.lif.Conv(neuron, 2, 2, 3, groups=2))
    exchange.write(net, tmp_path / "net.nir", input_shape=(2, 8, 8))
    with pytest.raises(ValueError, match="mismatch"):
        nir.read(tmp_path / "net.nir")
    nir.read(tmp_path / "net.nir", type_check=False)


def weights(layer):
    """Strong enough that everything fires."""
    with torch.no_grad():
        layer.weight.mul_(4)
    return layer


@pytest.mark.parametrize("kind", ["Leaky", "Synaptic"])
def test_a_network_of_snn_torch_comes_in(kind, tmp_path, digits):
    from snntorch.export_nir import export_to_nir

    snntorch.SpikingNeuron.instances = []

    def made(width):
        # One value a neuron: of a single number its exporter makes a node without a shape.
        options = {"threshold": torch.full((width,), 0.75), "init_hidden": True}
        options |= {"reset_mechanism": "zero", "reset_delay": False}
        beta = torch.full((width,), 0.875)
        if kind == "Leaky":
            return snntorch.Leaky(beta=beta, **options)
        return snntorch.Synaptic(alpha=torch.full((width,), 0.5), beta=beta, **options)

    model = torch.nn.Sequential(
        weights(torch.nn.Linear(64, 20)), made(20), weights(torch.nn.Linear(20, 5)), made(5)
    )
    x = digits[0][:100]
    graph = export_to_nir(model, x[0])
    nir.write(tmp_path / "net.nir", graph)
    net = exchange.read(tmp_path / "net.nir", time_steps=TIME_STEPS)
    snntorch.utils.reset(model)
    with torch.no_grad():
        expected = torch.stack([model(x) for _ in range(TIME_STEPS)]).mean(0)
    assert 0 < expected.mean() < 1
    torch.testing.assert_close(net(x), expected)


@pytest.mark.parametrize("kind", ["IF", "LIF", "LIF decaying", "CUBA"])
def test_a_network_of_spiking_jelly_comes_in(kind, tmp_path, digits):
    from spikingjelly.activation_based import functional, layer, neuron

    made = {
        "IF": lambda: neuron.IFNode(v_threshold=0.7),
        "LIF": lambda: neuron.LIFNode(tau=4.0, decay_input=False, v_threshold=0.7),
        "LIF decaying": lambda: neuron.LIFNode(tau=4.0, v_reset=-0.1, v_threshold=0.3),
        "CUBA": lambda: neuron.CUBALIFNode(c_decay=0.5, v_decay=0.75, v_threshold=0.7),
    }[kind]
    model = torch.nn.Sequential(
        weights(layer.Linear(64, 20)), made(), weights(layer.Linear(20, 5)), made()
    )
    x = digits[0][:100]
    nir.write(tmp_path / "net.nir", nir_exchange.export_to_nir(model, x[:1]))
    net = exchange.read(tmp_path / "net.nir", time_steps=TIME_STEPS)
    functional.reset_net(model)
    with torch.no_grad():
        expected = torch.stack([model(x) for _ in range(TIME_STEPS)]).mean(0)
    assert 0 < expected.mean() < 1
    torch.testing.assert_close(net(x), expected)


def test_a_recurrent_file_of_norse_is_refused():
    from pathlib import Path

    file = Path(norse.__file__).parent / "utils" / "test" / "braille.nir"
    with pytest.raises(ss.SpikestrapError, match=r"braille\.nir: NIR: "):
        exchange.read(file)
