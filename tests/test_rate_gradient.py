"""`ss.rate_based`: the SNN's logits, with the ANN's gradient at the SNN's rates."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import spikestrap as ss
from spikestrap.errors import NotFittedError, SpikestrapError
from spikestrap.timeaxis import time_mean
from spikestrap.unit import units_of


def fitted(net, x):
    """The network with curves of what it does with x."""
    with torch.no_grad():
        net(x, ss.Mode.SAMPLE)
        net(x, ss.Mode.FIT)
    return net


def mlp(neuron, block=ss.block.cuba, time_steps=4, **options):
    neuron = {**neuron, **options}
    return ss.Network(
        block.Dense(neuron, 12, 20, weight_scale=3.0),
        block.Dense(neuron, 20, 16, weight_scale=3.0),
        block.Affine(None, 16, 5),
        time_steps=time_steps,
    )


NEURONS = {
    "if": {
        "threshold": 1.0,
        "current_decay": 1.0,
        "voltage_decay": 0.0,
        "reset": "subtract",
        "v_init": 0.5,
    },
    "cuba": {"threshold": 1.0, "current_decay": 0.6, "voltage_decay": 0.1, "reset": "zero"},
    "none": {"threshold": 1.0, "current_decay": 1.0, "voltage_decay": 0.3, "reset": "none"},
}


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(NEURONS)), st.integers(1, 9), st.integers(0, 2**31))
def test_logits_are_the_snns_and_rates_get_the_slopes_of_their_curves(name, time_steps, seed):
    torch.manual_seed(seed)
    x = torch.rand(32, 12)
    net = fitted(mlp(NEURONS[name], time_steps=time_steps), x)
    logits = ss.rate_based(net, x)
    torch.testing.assert_close(logits, net(x, ss.Mode.SNN))

    # The chain rule by hand: rates as the spikes give them, slopes as the curves have them.
    one, two, readout = net.blocks
    held = ss.hold(x, time_steps)
    rates, inputs, before = [], [], held
    for block in (one, two):
        # The slope has steps, so let no rounding tell where it is taken.
        inputs.append(block.synapse(time_mean(before)).detach().requires_grad_())
        before = block(before, mode=ss.Mode.SNN).detach()
        rates.append(before.mean(0))

    def by_slope(block, z, grad):
        return torch.autograd.grad(block.unit.sampler(z), z, grad)[0]

    out = torch.randn_like(logits)
    second = by_slope(two, inputs[1], out @ readout.synapse.layer.weight)
    first = by_slope(one, inputs[0], second @ two.synapse.layer.weight)
    expected = [
        (one.synapse.layer.weight, first.T @ x),
        (two.synapse.layer.weight, second.T @ rates[0]),
        (readout.synapse.layer.weight, out.T @ rates[1]),
        (readout.synapse.layer.bias, out.sum(0)),
    ]
    found = torch.autograd.grad(logits, [p for p, _ in expected], out)
    for got, (_, by_hand) in zip(found, expected, strict=True):
        torch.testing.assert_close(got, by_hand, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("late", [(0,), (1,), (0, 1)])
@pytest.mark.parametrize("readout", [True, False])
def test_weights_behind_a_delay_shift_see_what_arrives(late, readout):
    neuron, dense = {**NEURONS["if"], "dropout": 0.3}, ss.block.cuba.Dense
    net = ss.Network(
        dense(neuron, 12, 20, weight_scale=3.0, delay_shift=0 in late, count_log=True),
        dense(neuron, 20, 16, weight_scale=3.0, delay_shift=1 in late),
        *([ss.block.cuba.Affine(None, 16, 5)] if readout else []),
        time_steps=4,
    )
    x = torch.rand(32, 12)
    fitted(net, x)
    torch.manual_seed(0)
    expected, rates = net(x, ss.Mode.SNN)
    torch.manual_seed(0)
    logits, found = ss.rate_based(net, x)
    torch.testing.assert_close(logits, expected)  # with what dropout has left of them
    torch.testing.assert_close(found, rates)

    one, two = net.eval().blocks[:2]
    first, _ = one(ss.hold(x, 4))
    z = two.synapse(time_mean(first)).detach().requires_grad_()
    logits, _ = ss.rate_based(net, x)
    torch.testing.assert_close(logits, net(x, ss.Mode.SNN)[0])
    grad = torch.randn_like(logits)
    logits.backward(grad)
    if readout:
        layer = net.blocks[2].synapse.layer
        torch.testing.assert_close(layer.weight.grad, grad.T @ time_mean(two(first)))
        grad = grad @ layer.weight
    (by_slope,) = torch.autograd.grad(two.unit.sampler(z), z, grad)
    by_hand = by_slope.T @ time_mean(first)
    torch.testing.assert_close(two.synapse.layer.weight.grad, by_hand, rtol=1e-4, atol=1e-5)


def test_norms_move_once_by_the_statistics_of_the_spikes():
    torch.manual_seed(0)
    x = torch.rand(32, 12)
    net = fitted(mlp(NEURONS["if"], norm="batch"), x)
    norms = [block.norm for block in net.blocks[:2]]
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net(x, ss.Mode.SNN)
    as_snn = [(norm.running_mean.clone(), norm.running_var.clone()) for norm in norms]
    net.load_state_dict(before)
    ss.rate_based(net, x).sum().backward()
    for norm, (mean, var) in zip(norms, as_snn, strict=True):
        torch.testing.assert_close(norm.running_mean, mean)
        torch.testing.assert_close(norm.running_var, var)


def test_a_hook_on_a_unit_sees_the_rates_of_the_snn():
    """As one that adds event rates to the loss does: the rates themselves have a gradient."""
    torch.manual_seed(0)
    x = torch.rand(32, 12)
    net = fitted(mlp(NEURONS["if"]), x)
    spikes, rates = [], []

    def note(unit, inputs, output):
        (rates if torch.is_grad_enabled() else spikes).append(output)

    for _, unit in units_of(net):
        unit.register_forward_hook(note)
    ss.rate_based(net, x)
    assert [s.shape for s in spikes] == [(4, 32, 20), (4, 32, 16)]
    for one, other in zip(rates, spikes, strict=True):
        assert torch.equal(one, time_mean(other))
    for _, unit in units_of(net):
        assert len(unit._forward_hooks) == 1  # its own are gone
    sum(rate.mean() for rate in rates).backward()
    assert all(block.synapse.layer.weight.grad.any() for block in net.blocks[:2])


@pytest.mark.parametrize("noise", [1e-3, 0.5])
def test_dropout_drops_the_same_in_both_passes(noise):
    torch.manual_seed(0)
    x = torch.rand(32, 12)
    neuron = {"threshold": 1.0, "voltage_decay": 0.1, "noise": noise}
    net = fitted(mlp(neuron, ss.block.noisy_lif, dropout=0.5), x)
    torch.manual_seed(1)
    by_snn = net(x, ss.Mode.SNN)
    drawn_next = torch.rand(3)
    torch.manual_seed(1)
    logits = ss.rate_based(net, x)
    torch.testing.assert_close(logits, by_snn)
    assert torch.equal(torch.rand(3), drawn_next)


def test_lengths_count_valid_steps_alone():
    torch.manual_seed(0)
    x, lengths = torch.rand(6, 8, 12), torch.randint(1, 7, (8,))
    net = mlp(NEURONS["cuba"], time_steps=None)
    with torch.no_grad():
        for mode in (ss.Mode.SAMPLE, ss.Mode.FIT):
            net(x, mode, lengths=lengths)
    expected = net(x, ss.Mode.SNN, lengths=lengths)
    torch.testing.assert_close(ss.rate_based(net, x, lengths=lengths), expected)


def test_a_residual_network_of_images():
    torch.manual_seed(0)
    neuron = dict(NEURONS["if"], norm="batch")
    net = ss.Network(
        ss.block.cuba.Conv(neuron, 1, 4, 3, padding=1),
        ss.block.Residual(ss.block.cuba.Conv, neuron, 4, 8, stride=2),
        ss.block.AvgPool(2),
        ss.block.Flatten(),
        ss.block.cuba.Affine(None, 32, 5),
        time_steps=3,
    )
    x = torch.rand(16, 1, 8, 8)
    by_snn = fitted(net, x)(x, ss.Mode.SNN)
    logits = ss.rate_based(net, x)
    torch.testing.assert_close(logits, by_snn)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_a_forward_that_deals_out_the_modes():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = mlp(NEURONS["if"], time_steps=4).blocks

        def forward(self, x, mode):
            x = ss.hold(x, 4)
            for block, m in zip(self.blocks, mode, strict=False):
                x = block(x, mode=m)
            return x

    torch.manual_seed(0)
    net, x = Own(), torch.rand(16, 12)
    logits = ss.rate_based(fitted(net, x), x)
    torch.testing.assert_close(logits, net(x, ss.LayerMode(ss.Mode.SNN)))
    logits.square().sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_half_precision_and_autocast():
    torch.manual_seed(0)
    x = torch.rand(32, 12)
    net = fitted(mlp(NEURONS["if"], norm="batch"), x).eval()
    with torch.autocast("cpu", torch.bfloat16):
        by_snn = net(x, ss.Mode.SNN)
        logits = ss.rate_based(net, x)
    torch.testing.assert_close(logits, by_snn)
    net, x = net.bfloat16(), x.bfloat16()
    logits = ss.rate_based(net, x)
    assert logits.dtype is torch.bfloat16
    torch.testing.assert_close(logits, net(x, ss.Mode.SNN))
    logits.float().square().sum().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.requires_grad)


def test_without_gradients_it_is_the_snn_and_needs_no_curves():
    net, x = mlp(NEURONS["cuba"]), torch.rand(8, 12)
    with torch.no_grad():
        assert torch.equal(ss.rate_based(net, x), net(x, ss.Mode.SNN))


def test_a_network_without_curves_is_refused():
    net, x = mlp(NEURONS["cuba"], norm="batch"), torch.rand(8, 12)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(NotFittedError):
        ss.rate_based(net, x)
    moved = {name for name, value in net.state_dict().items() if not value.equal(before[name])}
    assert moved <= {"blocks.0.norm.running_mean", "blocks.0.norm.running_var"}  # of that call
    assert not any(unit._forward_hooks for _, unit in units_of(net))


def test_units_are_expected_and_ones_that_rates_can_stand_for():
    with pytest.raises(SpikestrapError, match="rate_based: Linear has no spikestrap units"):
        ss.rate_based(nn.Linear(3, 2), torch.rand(4, 3))
    net = ss.Network(ss.block.sigma_delta.Dense({"threshold": 0.1}, 12, 5), time_steps=4)
    with pytest.raises(SpikestrapError, match="cannot be bootstrapped"):
        ss.rate_based(net, torch.rand(4, 12))


def test_a_compiled_network_is_refused():
    x = torch.rand(8, 12)
    net = fitted(mlp(NEURONS["if"]), x)
    inside = nn.Sequential(torch.compile(net, backend="eager"))
    for compiled in (torch.compile(net, backend="eager"), inside):
        with pytest.raises(SpikestrapError, match="expected a network that is not compiled"):
            ss.rate_based(compiled, x)
    net.compile(backend="eager")
    with pytest.raises(SpikestrapError, match="expected a network that is not compiled"):
        ss.rate_based(net, x)


class Twice(nn.Module):
    """Calls its block twice on rates, and so many times with spikes."""

    def __init__(self, spiking_calls):
        super().__init__()
        self.block = ss.block.cuba.Dense(NEURONS["if"], 12, 12, weight_scale=3.0)
        self.spiking_calls = spiking_calls

    def forward(self, x, mode):
        x = ss.hold(x, 4)
        for _ in range(self.spiking_calls if mode.spiking else 2):
            x = self.block(x, mode=mode)
        return x.mean(0) if mode.spiking else x


def test_a_unit_that_is_called_twice_gets_each_calls_own_rates():
    torch.manual_seed(0)
    x = torch.rand(8, 12)
    net = fitted(Twice(2), x)
    torch.testing.assert_close(ss.rate_based(net, x), net(x, ss.Mode.SNN))


def test_a_forward_that_calls_more_units_on_rates_is_refused():
    x = torch.rand(8, 12)
    net = fitted(Twice(1), x)
    with pytest.raises(SpikestrapError, match="called more often on rates than with spikes"):
        ss.rate_based(net, x)
