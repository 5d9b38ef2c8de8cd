"""torch.func: derivatives and batches of what the package computes, without backward()."""

import pytest
import torch
from tests.neuron.cases import draw_input, every_neuron, learnable_names, make
from torch.func import (
    functional_call,
    functionalize,
    grad,
    jacfwd,
    jacrev,
    jvp,
    stack_module_state,
    vmap,
)
from torch.nn import functional as F

import spikestrap as ss

SNN, ANN, SAMPLE, FIT = ss.Mode.SNN, ss.Mode.ANN, ss.Mode.SAMPLE, ss.Mode.FIT
block = ss.block


def dense(precision="float"):
    neuron = {"threshold": 0.5, "voltage_decay": 0.1, "learnable": ("threshold", "voltage_decay")}
    return ss.Network(
        block.cuba.Input({"threshold": 0.5}),
        block.cuba.Dense(neuron, 8, 16, weight_scale=4.0, bias=True),
        block.cuba.Dense({"threshold": 0.5, "reset": "subtract"}, 16, 16, weight_scale=4.0),
        block.cuba.Affine(None, 16, 3),
        time_steps=4,
        precision=precision,
    )


def convolutional():
    """Curves a channel, norms, pooling, a resonator's complex weights, feedback."""
    each, leak = {"sampler": {"per": "channel"}}, {"voltage_decay": 0.1}
    alif = {"threshold": 0.3, "threshold_step": 0.1, "threshold_decay": 0.1, **leak}
    return ss.Network(
        block.cuba.Conv({"threshold": 0.3, "norm": "batch", **each}, 1, 4, 3, padding=1),
        block.AvgPool(2),
        block.lif.Conv({"threshold": 0.3, "norm": "mean_only", **leak}, 4, 4, 3, weight_scale=4.0),
        block.Flatten(),
        block.rf.Dense({"threshold": 0.1, "period": 6.0, "decay": 0.1}, 16, 8, weight_scale=8.0),
        block.alif.Dense(alif, 8, 8, weight_scale=4.0),
        block.cuba.Affine(None, 8, 3),
        time_steps=4,
    )


NETWORKS = {
    "dense": (dense, (8,)),
    "chip": (lambda: dense("loihi"), (8,)),
    "convolutional": (convolutional, (1, 8, 8)),
}
every_network = pytest.mark.parametrize("name", NETWORKS)


def trained(name):
    """A network with curves, and some images with labels."""
    make_network, shape = NETWORKS[name]
    torch.manual_seed(0)
    net, x, y = make_network(), 2 * torch.rand(5, *shape), torch.arange(5) % 3
    net(x, SAMPLE)
    net(x, FIT)
    return net.eval(), x, y


def by_backward(net, x, y, mode):
    loss = F.cross_entropy(net(x, mode), y)
    wanted = dict(net.named_parameters())
    found = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
    return {
        key: torch.zeros_like(p) if g is None else g
        for (key, p), g in zip(wanted.items(), found, strict=True)
    }


def loss_of(net, mode):
    """The loss as a function of parameters and of one image and its label."""
    buffers = dict(net.named_buffers())

    def loss(parameters, x, y):
        logits = functional_call(net, (parameters, buffers), (x[None], mode))
        return F.cross_entropy(logits, y[None])

    return loss


@every_network
@pytest.mark.parametrize("mode", [SNN, ANN])
def test_gradients_of_each_image_are_those_of_backward(name, mode):
    net, x, y = trained(name)
    parameters = {key: p.detach() for key, p in net.named_parameters()}
    found = vmap(grad(loss_of(net, mode)), (None, 0, 0))(parameters, x, y)
    assert any(g.abs().max() > 0 for g in found.values())
    for image in range(len(x)):
        wanted = by_backward(net, x[image : image + 1], y[image : image + 1], mode)
        for key, g in wanted.items():
            torch.testing.assert_close(found[key][image], g, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("name", ["dense", "convolutional"])
@pytest.mark.parametrize("mode", [SNN, ANN])
def test_networks_side_by_side_are_each_by_itself(name, mode):
    nets = []
    for number, time_steps in enumerate((4, 4, 8)):
        net, x, _ = trained(name)
        torch.manual_seed(number)
        with torch.no_grad():
            for p in net.parameters():
                p.mul_(torch.empty(()).uniform_(0.8, 1.2))
        net.time_steps = time_steps if mode is ANN else 4  # rates on other grids
        net(x, SAMPLE)
        net(x, FIT)
        nets.append(net)
    parameters, buffers = stack_module_state(nets)

    def logits(parameters, buffers):
        return functional_call(nets[0], (parameters, buffers), (x, mode))

    together = vmap(logits)(parameters, buffers)
    assert not together[0].equal(together[1])
    for got, net in zip(together, nets, strict=True):
        torch.testing.assert_close(got, net(x, mode), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["dense", "convolutional"])
def test_forward_and_reverse_mode_agree_for_an_ann(name):
    net, x, _ = trained(name)
    forward = jacfwd(lambda x: net(x, ANN))(x)
    reverse = jacrev(lambda x: net(x, ANN))(x)
    assert reverse.abs().max() > 0
    torch.testing.assert_close(forward, reverse, atol=1e-5, rtol=1e-3)


@every_neuron
def test_jacobian_of_a_neuron_is_what_backward_gives(neuron_type):
    neuron = make(neuron_type, learnable=learnable_names(neuron_type))
    z = draw_input(0, (4, 2, 3))

    def spikes(z):
        torch.manual_seed(0)
        return neuron(z)

    rows = []
    for index in range(z.numel()):
        leaf = z.clone().requires_grad_()
        rows.append(torch.autograd.grad(spikes(leaf).flatten()[index], leaf)[0])
    wanted = torch.stack(rows).view(*z.shape, *z.shape)
    assert wanted.abs().max() > 0
    found = jacrev(spikes)(z)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-4)


def test_another_networks_curves_in_place():
    net, x, _ = trained("dense")
    other, x, _ = trained("dense")
    other.time_steps = 16
    other(x, SAMPLE)
    other(x, FIT)
    parts = dict(other.named_parameters()) | dict(other.named_buffers())
    found = functional_call(net, parts, (x, ANN))
    assert found.equal(other(x, ANN))
    assert net(x, ANN).equal(trained("dense")[0](x, ANN))


def test_no_second_derivative():
    net, x, _ = trained("dense")
    with pytest.raises(ss.SpikestrapError, match="no second derivative"):
        jacrev(jacrev(lambda x: net(x, ANN).square().sum()))(x)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_forward_mode_compiled():
    net, x, _ = trained("dense")

    def tangent(x):
        return jvp(lambda x: net(x, ANN), (x,), (torch.ones_like(x),))[1]

    wanted = tangent(x)
    assert wanted.abs().max() > 0
    compiled = torch.compile(tangent, backend="aot_eager")
    torch.testing.assert_close(compiled(x), wanted, atol=1e-5, rtol=1e-3)


def test_what_keeps_or_reads_memory_refuses():
    net, x, _ = trained("dense")
    frozen = net.freeze()
    for transform in (vmap, functionalize):
        with pytest.raises(ss.SpikestrapError, match=r"outside torch\.func's transforms"):
            transform(lambda x: frozen(x[None]))(x if transform is vmap else x[0])
        with pytest.raises(ss.SpikestrapError, match=r"outside torch\.func's transforms"):
            transform(lambda x: net(x[None], SAMPLE))(x if transform is vmap else x[0])
    with (
        ss.kernel.use_backend("fused"),
        pytest.raises(ss.SpikestrapError, match=r"outside torch\.func's transforms"),
    ):
        vmap(lambda x: net(x[None], SNN))(x)
