"""torch.compile of a whole training step: forward, loss and backward pass as one graph."""

import copy

import norse.torch as norse
import pytest
import snntorch
import torch
from torch import nn
from torch.nn import functional as F

import spikestrap as ss
from spikestrap.compiling import disable

SNN, ANN, SAMPLE, FIT = ss.Mode.SNN, ss.Mode.ANN, ss.Mode.SAMPLE, ss.Mode.FIT
block = ss.block
ALIF = {"threshold": 0.3, "threshold_step": 0.1, "threshold_decay": 0.1, "voltage_decay": 0.1}


def convolutional():
    """Norms, dropout, pooling, weight norm, a learnable neuron; kernels written and compiled."""
    lif = {"threshold": 0.5, "voltage_decay": 0.2, "learnable": ("voltage_decay",)}
    return ss.Network(
        block.cuba.Input({"threshold": 0.5}),
        block.cuba.Conv({"threshold": 0.4, "norm": "batch"}, 1, 4, 3, padding=1),
        block.AvgPool(2),
        block.lif.Conv({**lif, "norm": "mean_only", "dropout": 0.2}, 4, 6, 3, weight_scale=4.0),
        block.Flatten(),
        block.plif.Dense({"threshold": 0.4, "w": 1.0}, 24, 16, weight_scale=4.0, weight_norm=True),
        block.cuba.Affine(None, 16, 3),
        time_steps=4,
    )


def mixed():
    """Neurons of other kinds, one of them at random; curves a channel."""
    each = {"sampler": {"per": "channel"}}
    return ss.Network(
        block.Flatten(),
        block.integrate_fire.Dense({"threshold": 0.5, "reset": "subtract"}, 64, 16),
        block.alif.Dense({**ALIF, **each}, 16, 16, weight_scale=4.0),
        block.refractory_lif.Dense(
            {"threshold": 0.3, "voltage_decay": 0.1}, 16, 16, weight_scale=4.0
        ),
        block.noisy_lif.Dense({"threshold": 0.3, "voltage_decay": 0.1}, 16, 16, weight_scale=4.0),
        block.cuba.Affine(None, 16, 3),
        time_steps=4,
    )


class Residual(nn.Module):
    """A forward that the user wrote."""

    def __init__(self):
        super().__init__()
        conv = {"threshold": 0.4, "norm": "batch"}
        self.first = block.cuba.Conv(conv, 1, 4, 3, padding=1)
        self.second = block.cuba.Conv(conv, 4, 4, 3, padding=1, weight_scale=2.0)
        self.add = block.Add()
        self.readout = block.cuba.Affine(None, 256, 3)

    def forward(self, x, mode):
        modes = iter(mode)
        x = self.first(ss.hold(x, 4), next(modes))
        return self.readout(block.Flatten()(self.add(x, self.second(x, next(modes)))))


def batch():
    return 3 * torch.rand(16, 1, 8, 8), torch.arange(16) % 3


def step_of(net, mode):
    def step(x, y):
        loss = F.cross_entropy(net(x, mode), y)
        loss.backward()
        return loss.detach()

    return step


def after(step, net, x, y):
    """What a training step leaves: loss, gradients, and the buffers of norms and curves."""
    torch.manual_seed(1)
    net.zero_grad()
    found = {"loss": step(x, y)}
    found |= {name: p.grad for name, p in net.named_parameters()}
    return found | {name: b.clone() for name, b in net.named_buffers()}


def check_same(one, other):
    for name, value in one.items():
        if value is None:
            assert other[name] is None, name
        else:
            torch.testing.assert_close(value, other[name], msg=name)


@pytest.mark.parametrize("mode", [ANN, SNN, ss.LayerMode(ANN, 1)], ids=str)
@pytest.mark.parametrize("make", [convolutional, mixed, Residual])
def test_a_training_step_is_one_graph_and_the_same(make, mode, fresh_compiler):
    mode = ss.LayerMode(mode) if isinstance(mode, ss.Mode) else mode
    net, (x, y) = make(), batch()
    for first in (SAMPLE, FIT):
        net(x, ss.LayerMode(first))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    plain = after(step_of(net, mode), net, x, y)
    net.load_state_dict(before)
    compiled = torch.compile(step_of(net, mode), fullgraph=True, backend="aot_eager")
    with torch._dynamo.config.patch(trace_autograd_ops=True):
        graph = after(compiled, net, x, y)
    assert any(bool(g.any()) for name, g in plain.items() if name.endswith("weight"))
    check_same(plain, graph)


def test_inference_is_one_graph_and_the_same(fresh_compiler):
    net, (x, _) = convolutional().eval(), batch()
    compiled = torch.compile(lambda x: net(x, SNN), fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), net(x, SNN))


@pytest.mark.parametrize("gradient", [False, True])
def test_the_chips_neuron_is_one_graph_and_the_same(gradient, fresh_compiler):
    neuron = ss.neuron.ChipCUBA(ss.neuron.LIF(threshold=0.5, voltage_decay=0.2))
    z = (torch.arange(4 * 3 * 5).view(4, 3, 5) % 64 / 64).requires_grad_(gradient)
    compiled = torch.compile(neuron, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(z), neuron(z))


def test_learnt_parameters_are_kept_in_their_bounds(fresh_compiler):
    neuron = ss.neuron.LIF(1.0, 0.5, learnable=("voltage_decay",))
    with torch.no_grad():
        neuron.voltage_decay.fill_(1.5)  # where an optimizer may push it
    z, found = 1.5 * torch.rand(8, 4, 3), []
    for run in (neuron, torch.compile(neuron, fullgraph=True, backend="aot_eager")):
        spikes = run(z)
        spikes.sum().backward()
        found.append((spikes, neuron.voltage_decay.grad))
        neuron.voltage_decay.grad = None
    assert found[0][1] != 0
    torch.testing.assert_close(*found)


def test_parameters_a_channel_go_with_sizes_that_vary(fresh_compiler):
    neuron = ss.neuron.CUBA(torch.rand(6) + 0.5, 0.3, torch.rand(6), learnable=("threshold",))
    compiled = torch.compile(neuron, fullgraph=True, backend="eager", dynamic=True)
    for batch in (3, 5):
        z = torch.rand(4, batch, 6)
        assert torch.equal(compiled(z), neuron(z))


def test_a_recurrent_network_is_one_graph_and_the_same(fresh_compiler):
    lif = {"threshold": 0.5, "voltage_decay": 0.1}
    net = ss.Network(block.lif.Recurrent(lif, 7, 5), block.lif.Affine(None, 5, 3))
    x = torch.rand(6, 4, 7)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, SNN), net(x, SNN))


def test_the_modes_of_a_training_compile_once_each(fresh_compiler):
    """SAMPLE and FIT run uncompiled; the steps between them are the same two graphs throughout."""
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    net, (x, y) = mixed(), batch()
    twin = mixed()
    twin.load_state_dict(net.state_dict())
    compiled = torch.compile(lambda x, y, mode: F.cross_entropy(net(x, mode), y), backend=backend)
    scheduler = ss.Scheduler(num_sample_iter=1, sample_period=1, snn_from=2)
    seen = []
    for epoch in range(4):
        for i in range(4):
            mode = scheduler.mode(epoch, i)
            if mode.base_mode in (SAMPLE, FIT):
                loss = F.cross_entropy(net(x, mode), y)
            else:
                loss = compiled(x, y, mode)
            loss.backward()
            seen.append(len(graphs))
    assert seen[3] == 1, "the first ANN step compiles"
    assert seen[7] == 1, "a new fit does not compile again"
    assert seen[8] == seen[-1] == 2, "the first SNN step does"


def test_what_is_disabled_runs_uncompiled_with_all_it_calls(fresh_compiler):
    done = []

    def backend(graph, inputs):
        done.extend(node.target for node in graph.graph.nodes if node.op == "call_method")
        return graph.forward

    def below(x):
        return x.sin()

    @disable
    def apart(x):
        return below(x)

    x = torch.rand(3)
    compiled = torch.compile(lambda x: apart(x.cos()).exp(), backend=backend)
    torch.testing.assert_close(compiled(x), x.cos().sin().exp())
    assert done == ["cos", "exp"]


def of_another_library():
    model = nn.Sequential(
        nn.Linear(6, 16), snntorch.Leaky(beta=0.5, init_hidden=True), nn.Linear(16, 3)
    )
    return ss.bootstrap(model, time_steps=4)


@pytest.mark.parametrize("mode", [ANN, SNN])
def test_a_model_of_another_library_gives_the_same(mode, fresh_compiler):
    """What stands in for its neurons' calls is plain Python: its graph has breaks."""
    net, x, y = of_another_library(), 3 * torch.rand(16, 6), torch.arange(16) % 3
    for first in (SAMPLE, FIT, ANN, SNN):
        net(x, first)
    plain = after(step_of(net, mode), net, x, y)
    compiled = torch.compile(step_of(net, mode), backend="aot_eager")
    check_same(plain, after(compiled, net, x, y))


def test_its_first_passes_find_out_what_they_must_uncompiled(fresh_compiler):
    torch.manual_seed(0)
    net, x = of_another_library(), 3 * torch.rand(16, 6)
    twin = copy.deepcopy(net)
    compiled = torch.compile(net, backend="eager")
    for mode in (SAMPLE, FIT, ANN, SNN, ANN, SNN):
        torch.testing.assert_close(compiled(x, mode), twin(x, mode))
    refused = ss.bootstrap(
        nn.Sequential(nn.Linear(6, 8), snntorch.Leaky(beta=0.5, init_hidden=True), nn.ReLU()), 4
    )
    with pytest.raises(ss.SpikestrapError, match=r"relu in '2'.* does not commute"):
        torch.compile(refused, backend="eager")(x, SNN)


@pytest.mark.parametrize("part", ["model", "in place", "layer", "neuron"])
def test_one_that_is_compiled_already_gives_the_same(part, fresh_compiler):
    net, x, y = of_another_library(), 3 * torch.rand(16, 6), torch.arange(16) % 3
    model = copy.deepcopy(net.unwrap())
    if part == "in place":
        model.compile(backend="eager")
    elif part == "model":
        model = torch.compile(model, backend="eager")
    else:
        index = 0 if part == "layer" else 1
        model[index] = torch.compile(model[index], backend="eager")
    compiled = ss.bootstrap(model, time_steps=4)
    for mode in (SAMPLE, FIT, ANN, SNN, ANN, SNN):
        losses = []
        for each in (net, compiled):
            each.zero_grad()
            losses.append(F.cross_entropy(each(x, mode), y))
            losses[-1].backward()
        torch.testing.assert_close(*losses)
        for one, other in zip(net.parameters(), compiled.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad)


class Looped(nn.Module):
    """Runs over time by itself, for so many steps as its attribute says."""

    def __init__(self):
        super().__init__()
        self.num_steps = 4
        self.first, self.leaky, self.last = nn.Linear(6, 16), snntorch.Leaky(0.5), nn.Linear(16, 3)

    def forward(self, x):
        membrane, outputs = self.leaky.init_leaky(), []
        for step in range(self.num_steps):
            spikes, membrane = self.leaky(self.first(x if x.ndim == 2 else x[step]), membrane)
            outputs.append(self.last(spikes))
        return torch.stack(outputs)


def passing_state_on():
    parameters = norse.LIFBoxParameters(tau_mem_inv=torch.tensor(400.0), v_th=torch.tensor(0.1))
    return norse.SequentialState(nn.Linear(6, 16), norse.LIFBoxCell(parameters), nn.Linear(16, 3))


@pytest.mark.parametrize(
    ("make", "time_steps", "layout"),
    [(passing_state_on, 4, None), (Looped, 4, None), (Looped, None, "own")],
)
def test_a_compiled_model_is_looked_through(make, time_steps, layout, fresh_compiler):
    model, x = make(), 3 * torch.rand(16, 6)
    plain = ss.bootstrap(copy.deepcopy(model), time_steps, layout=layout)
    calls = []
    next(m for m in model.modules() if isinstance(m, nn.Linear)).register_forward_hook(
        lambda *_: calls.append(1)
    )
    outer = torch.compile(model, backend="eager")
    net = ss.bootstrap(outer, time_steps, layout=layout)
    x = x if time_steps else x * torch.rand(4, 1, 1)
    for mode in (SAMPLE, FIT, ANN, SNN, ANN):
        torch.testing.assert_close(net(x, mode), plain(x, mode))
    assert net.unwrap() is outer
    calls.clear()
    net(x, ANN)
    assert len(calls) == 1


@pytest.mark.parametrize("part", ["model", "in place", "layer"])
def test_before_torch_can_run_it_uncompiled_it_is_refused(part, fresh_compiler, monkeypatch):
    monkeypatch.delattr(torch.compiler, "set_stance")
    model = of_another_library().unwrap()
    if part == "in place":
        model.compile(backend="eager")
    elif part == "model":
        model = torch.compile(model, backend="eager")
    else:
        model[0] = torch.compile(model[0], backend="eager")
    with pytest.raises(ss.SpikestrapError, match="bootstrap first, then compile"):
        ss.bootstrap(model, time_steps=4)(torch.rand(16, 6), SNN)
