"""Half precision around neurons, norms and curves, which stay in float32."""

import copy

import pytest
import torch
from tests.neuron.cases import ZOO, make
from torch.nn import functional as F

import spikestrap as ss
from spikestrap.ann_sampler import AnnSampler
from spikestrap.neuron import Neuron
from spikestrap.norm import NORMS, Norm
from spikestrap.precision import HALVES

SNN, ANN, SAMPLE, FIT = ss.Mode.SNN, ss.Mode.ANN, ss.Mode.SAMPLE, ss.Mode.FIT
halves = pytest.mark.parametrize("dtype", HALVES, ids=str)
NEURON = {"threshold": 1.0, "voltage_decay": 0.03, "learnable": ("threshold", "voltage_decay")}
cuba = ss.block.cuba


@pytest.fixture
def half_by_default():
    """What Lightning does around each step of a training in true half precision."""

    def switch(dtype):
        torch.set_default_dtype(dtype)

    yield switch
    torch.set_default_dtype(torch.float32)


def network(norm="batch"):
    return ss.Network(
        cuba.Conv({**NEURON, "norm": norm}, 1, 8, 3, padding=1),
        ss.block.Flatten(),
        ss.block.plif.Dense({"threshold": 0.5, "w": 1.0}, 128, 16, weight_scale=6.0),
        cuba.Dense(
            {**NEURON, "sampler": {"per": "channel"}}, 16, 16, weight_scale=4.0, weight_norm=True
        ),
        cuba.Affine(None, 16, 3),
        time_steps=4,
    )


def batch():
    return 3 * torch.rand(32, 1, 4, 4, dtype=torch.float32), torch.arange(32) % 3


def check_kept(net):
    """Neurons, norms, statistics and curves are what they were before the cast."""
    for module in net.modules():
        if isinstance(module, Neuron | Norm | AnnSampler):
            for name, tensor in (*module.named_parameters(), *module.named_buffers()):
                assert tensor.dtype in (torch.float32, torch.int64), name
        if isinstance(module, AnnSampler):
            assert module.statistics.pairs.dtype is torch.float64


@halves
@pytest.mark.parametrize("norm", NORMS)
def test_a_network_in_true_half_precision_trains_in_every_mode(dtype, norm, half_by_default):
    net = network(norm)
    decay = net.blocks[0].unit.neuron.voltage_decay.item()
    net.to(dtype)
    assert net.blocks[0].unit.neuron.voltage_decay.item() == decay
    assert net.blocks[0].synapse.weight.dtype is dtype
    x, y = batch()
    half_by_default(dtype)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    before = copy.deepcopy(net.state_dict())
    for mode in (SAMPLE, SAMPLE, FIT, ANN, SNN, ss.LayerMode(ANN, 1)):
        optimizer.zero_grad()
        logits = net(x.to(dtype), mode)
        assert logits.dtype is dtype
        F.cross_entropy(logits, y).backward()
        gradients = [p.grad for p in net.parameters() if p.grad is not None]
        assert all(bool(g.isfinite().all()) for g in gradients)
        assert any(bool(g.any()) for g in gradients)
        optimizer.step()
    check_kept(net)
    for name in ("unit.neuron.voltage_decay", "unit.neuron.threshold", "synapse.layer.weight"):
        name = f"blocks.0.{name}"
        assert (net.state_dict()[name] != before[name]).any(), name
    net.eval()
    for mode in (SNN, ANN):
        assert net(x.to(dtype), mode).isfinite().all()


def test_what_it_samples_and_computes_is_near_the_full_one(half_by_default):
    torch.manual_seed(0)
    net = network().eval()
    half = copy.deepcopy(net).bfloat16()
    x, _ = batch()
    logits = {}
    for name, one, dtype in (("full", net, torch.float32), ("half", half, torch.bfloat16)):
        half_by_default(dtype)
        for mode in (SAMPLE, FIT):
            one(x.to(dtype), mode)
        logits[name] = [one(x.to(dtype), mode).float() for mode in (SNN, ANN)]
    for full, other in zip(logits["full"], logits["half"], strict=True):
        assert (full - other).abs().mean() < 0.05


def test_built_and_moved_in_half_precision(half_by_default):
    half_by_default(torch.bfloat16)
    net = network()
    check_kept(net)
    assert net.blocks[0].synapse.weight.dtype is torch.bfloat16
    assert net.to("meta").blocks[0].norm.weight.dtype is torch.float32
    assert net.blocks[0].norm.weight.device.type == "meta"


@pytest.mark.parametrize("kind", ZOO)
@halves
def test_torchs_default_changes_no_neuron(kind, dtype, half_by_default):
    """Kernels are compiled, checked and run as ever; what is random stays the same too."""
    results = []
    for default in (torch.float32, dtype):
        torch.manual_seed(0)
        neuron = make(kind)
        z = torch.randn(6, 8, 5, dtype=torch.float32).requires_grad_()
        half_by_default(default)
        spikes, state = neuron(z, return_state=True)
        spikes.square().sum().backward()
        results.append([spikes.detach(), *state, z.grad])
    for one, other in zip(*results, strict=True):
        assert other.dtype is torch.float32
        assert torch.equal(one, other)


@pytest.mark.parametrize("kind", ZOO)
@halves
def test_neuron_states_are_float32(kind, dtype):
    neuron = make(kind).to(dtype)
    with torch.autocast("cpu", dtype):
        spikes, state = neuron(torch.randn(6, 8, 5, dtype=dtype), return_state=True)
    assert spikes.dtype is dtype
    assert all(part.dtype is torch.float32 for part in state)
    assert all(t.dtype is torch.float32 for t in (*neuron.parameters(), *neuron.buffers()))


@pytest.mark.parametrize("mode", [FIT, ANN, SNN], ids=str)
def test_a_loss_scaler_steps_and_backs_off(mode):
    net, (x, y) = network(), batch()
    net(x, SAMPLE)
    if mode is ANN:
        net(x, FIT)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1)

    def step(scale_of_loss=1.0):
        """Whether it changed the network."""
        before = copy.deepcopy(net.state_dict())
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = F.cross_entropy(net(x, mode), y)
        scaler.scale(loss * scale_of_loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return any(not torch.equal(p, before[name]) for name, p in net.named_parameters())

    assert step()
    assert scaler.get_scale() == 2048
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())
    assert not step(torch.inf)
    assert scaler.get_scale() == 1024
    check_kept(net)
