import pytest
import snntorch
import torch
from torch import nn

import spikestrap as ss
from spikestrap import block, fixed
from spikestrap.train.evaluate import EventRate
from spikestrap.unit import Unit

NEURON = {"threshold": 0.5}


def network():
    return ss.Network(
        block.cuba.Input(NEURON, weight=1.0, bias=0.0),
        block.cuba.Conv(NEURON, 1, 2, 3, padding=1, weight_scale=3.0),
        block.Flatten(),
        block.cuba.Affine(None, 18, 5, bias=False),
        time_steps=4,
        precision="loihi",
    )


def test_one_spike_reaches_the_synapses_around_its_pixel():
    net = network()
    with torch.no_grad():
        for module in net.blocks[1], net.blocks[3]:
            module.synapse.layer.weight.fill_(-1.0)  # nothing fires behind
    x = torch.zeros(2, 1, 3, 3)
    x[0, 0, 1, 1] = 1.0  # the centre: 9 places x 2 channels, at each of 4 steps
    x[1, 0, 0, 0] = 1.0  # a corner: 4 places x 2 channels
    found = ss.cost(net, x)
    assert found.spikes == 4
    assert found.synaptic_operations == (4 * 18 + 4 * 8) / 2
    assert found.neuron_updates == 4 * (9 + 18)
    # Input 9; convolution: 49 places where kernel and image overlap, twice; readout 18 x 5.
    assert found.ann_macs == 9 + 2 * 49 + 90
    assert found.macs == 9
    assert found.ann_energy == pytest.approx(4.6 * found.ann_macs)
    assert found.snn_energy == pytest.approx(0.9 * 52 + 4.6 * (108 + 9))
    assert found.to_dict()["snn_energy_pj"] == found.snn_energy


def test_a_network_and_its_integers_cost_the_same():
    net = network()
    x = torch.rand(6, 1, 3, 3)
    assert ss.cost(net, x) == ss.cost(fixed.from_network(net, (1, 3, 3)), x)


def test_spikes_behind_a_pooling_are_counted_one_by_one():
    net = ss.Network(
        block.cuba.Input(NEURON, weight=1.0, bias=0.0),
        block.AvgPool(2),
        block.cuba.Conv(NEURON, 1, 2, 2, weight_scale=3.0),
        block.AvgPool(2),
        block.Flatten(),
        block.cuba.Affine(None, 2, 5, bias=False),
        time_steps=4,
        precision="loihi",
    )
    with torch.no_grad():
        net.blocks[2].synapse.layer.weight.fill_(-1.0)  # nothing fires behind
    x = torch.zeros(1, 1, 6, 6)
    x[0, 0, 2:4, 2:4] = 1.0  # the window in the middle: 4 spikes a step, 4 places x 2 channels each
    found = ss.cost(net, x)
    assert found.spikes == 4 * 4
    assert found.synaptic_operations == 4 * 4 * 4 * 2
    with torch.no_grad():
        net.blocks[2].synapse.layer.weight.fill_(1.0)
    x = torch.rand(6, 1, 6, 6)
    chip = fixed.from_network(net, (1, 6, 6))
    assert ss.cost(net, x).synaptic_operations == ss.cost(chip, x).synaptic_operations


def test_pooling_behind_what_was_enlarged_and_in_channels_last():
    weights = {"weight": 1.0, "bias": 0.0}
    net = ss.Network(
        block.cuba.Input(NEURON, **weights),
        block.AvgPool(4),
        block.Upsample(4),
        block.AvgPool(2),
        block.Flatten(),
        block.cuba.Affine(None, 4, 3),
        time_steps=2,
    )
    # Wherever something spikes all 16 places do once enlarged: 4 in each of 4 windows, 3 outputs.
    assert ss.cost(net, torch.ones(1, 1, 4, 4)).synaptic_operations == 2 * 16 * 3
    first = ss.Network(
        block.AvgPool(2), block.Flatten(), block.cuba.Dense(NEURON, 8, 3), time_steps=2
    )
    x = torch.rand(5, 2, 4, 4)
    assert ss.cost(first, x.to(memory_format=torch.channels_last)) == ss.cost(first, x)


def events_net(*front):
    return ss.Network(
        *front,
        block.cuba.Dense({"threshold": 100.0}, 1, 2),  # silent
        block.cuba.Affine(None, 2, 3),
        time_steps=None,
    )


def test_an_input_of_counts_is_so_many_events():
    x = torch.tensor([3.0, 0.0, 1.0, 8.0]).view(4, 1, 1)
    assert ss.cost(events_net(), x).synaptic_operations == 2 * 12
    assert ss.cost(events_net(), x.expand(4, 5, 1)).synaptic_operations == 2 * 12
    images = x.view(4, 1, 1, 1, 1).expand(4, 1, 1, 2, 2)
    pooled = events_net(block.AvgPool(2), block.Flatten())
    assert ss.cost(pooled, images).synaptic_operations == 2 * 4 * 12
    for values in (x / 2, -x):  # no counts
        assert ss.cost(events_net(), values).synaptic_operations == 2 * 3
    # An Input block turns values, whole or not, into spikes: once a step.
    encoder = block.cuba.Input({"threshold": 100.0})
    assert ss.cost(events_net(encoder), x).synaptic_operations == 3
    # A sigma-delta neuron sends whole numbers at times: one message each.
    sends = block.sigma_delta.Dense({"threshold": 0.5}, 1, 1)
    sends.synapse.layer.weight.data.fill_(1.0)
    assert ss.cost(events_net(sends), x).synaptic_operations == 12 + 2 * 3


def test_recurrent_synapses_are_counted():
    net = ss.Network(
        block.cuba.Input(NEURON),
        block.cuba.Recurrent(NEURON, 4, 3, weight_scale=3.0),
        time_steps=4,
        precision="loihi",
    )
    recurrent = net.blocks[1]
    with torch.no_grad():
        recurrent.synapse.weight.fill_(0.25)
        recurrent.unit.neuron.synapse.weight.fill_(-0.125)
    x = torch.rand(6, 4)
    found = ss.cost(net, x)
    assert found.ann_macs == 4 + 4 * 3 + 3 * 3
    assert found == ss.cost(fixed.from_network(net), x)


def fired_in(net):
    """A list into which each neuron layer puts its spikes as they are fired."""
    fired = []
    for module in net.modules():
        if isinstance(module, Unit):
            module.register_forward_hook(lambda unit, args, s: fired.append(s.detach().double()))
    return fired


def delay(channels, steps):
    return block.Delay(channels, 9, initial=float(steps), learnable=False)


@pytest.mark.parametrize(
    "blocks",
    [
        lambda: [delay(20, 3), block.cuba.Dense(NEURON, 20, 30, weight_scale=4.0)],
        lambda: [block.cuba.Dense(NEURON, 20, 30, weight_scale=4.0, delay_shift=True)],
        lambda: [block.cuba.Recurrent(NEURON, 20, 30, weight_scale=4.0, delay=3)],
    ],
    ids=["delay", "shift", "recurrent"],
)
def test_spikes_that_a_delay_has_arrive_too_late_were_fired_all_the_same(blocks):
    shift = getattr(blocks()[0], "delay_shift", False)
    net = ss.Network(
        block.cuba.Input(NEURON, delay_shift=shift),
        *blocks(),
        block.cuba.Affine(None, 30, 4),
        time_steps=4,
        precision="loihi",
    ).eval()
    if isinstance(net.blocks[1], block.Recurrent):
        torch.nn.init.constant_(net.blocks[1].delay.delay, 3.0)
    x, fired = torch.rand(8, 20), fired_in(net)
    chip = fixed.from_network(net)
    with torch.no_grad(), EventRate(net) as rate:
        net(x)
    spikes, places = sum(int(s.sum()) for s in fired), sum(s.numel() for s in fired)
    arrived = sum(int(s.sum()) for s in chip.spikes(x).values())
    assert arrived < spikes
    found, result = ss.cost(net, x), chip.run(x)
    assert found == ss.cost(chip, x)
    assert found.spikes == sum(result.events.values()) / 8 == spikes / 8
    assert rate.value == result.event_rate == spikes / places
    # The readout's 4 synapses each: what left the last layer.
    last = max(result.events)
    assert found.synaptic_operations * 8 >= 4 * chip.spikes(x)[last].sum()


def test_spikes_behind_a_delay_reach_something_when_they_arrive():
    x = (torch.rand(3, 4, 2, 4, 4) < 0.5).float()
    readout = block.Affine(None, 8, 5)
    for late, behind in ((0, 3), (1, 2), (2, 1), (3, 0)):
        expected = 5 * x[:behind].sum() / 4
        for blocks in (
            (block.AvgPool(2), delay(2, late), block.Flatten()),
            (block.AvgPool(2), block.Flatten(), delay(8, late)),
            (delay(2, late), block.AvgPool(2), block.Flatten()),
        ):
            found = ss.cost(ss.Network(*blocks, readout), x)
            assert found.synaptic_operations == pytest.approx(float(expected))
        net = ss.Network(delay(32, late), block.cuba.Dense(NEURON, 32, 5), precision="loihi")
        torch.nn.init.constant_(net.blocks[1].synapse.weight, 0.25)
        flat = x.flatten(2)
        assert ss.cost(net, flat).synaptic_operations == pytest.approx(float(expected))
        for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
            assert ss.cost(fixed.from_network(net), flat.to(dtype), 3) == ss.cost(net, flat)


def test_only_the_first_use_of_a_first_block_gets_the_static_input():
    tied = block.cuba.Dense(NEURON, 20, 20, weight_scale=4.0)
    net = ss.Network(tied, tied, block.cuba.Affine(None, 20, 4), time_steps=4)
    x, fired = torch.rand(8, 20), fired_in(net)
    net(x)
    found = ss.cost(net, x)
    assert found.macs == 20 * 20
    assert found.ann_macs == 20 * 20 + 20 * 20 + 20 * 4
    first, second = (float(s.sum()) / 8 for s in fired[:2])
    assert found.synaptic_operations == pytest.approx(20 * first + 4 * second)


def unrounded_counts():
    return ss.Network(
        block.cuba.Input(NEURON),
        block.cuba.Dense(NEURON, 101, 103, weight_scale=4.0),
        block.cuba.Recurrent(NEURON, 103, 107, weight_scale=4.0),
        block.cuba.Affine(None, 107, 10),
        time_steps=4,
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_counts_are_exact_in_any_precision(dtype, autocast):
    net, x = unrounded_counts(), torch.rand(7, 101)
    if autocast:
        dtype = torch.bfloat16 if dtype is torch.float64 else dtype
    else:
        net, x = net.to(dtype), x.to(dtype)
    fired = fired_in(net)
    with torch.autocast("cpu", dtype, enabled=autocast):
        found = ss.cost(net, x)
    one, two, three = (float(s.sum()) for s in fired[-3:])
    assert found.spikes == (one + two + three) / 7
    assert found.synaptic_operations == (103 * one + 107 * two + 117 * three) / 7
    assert found.ann_macs == 101 + 101 * 103 + 103 * 107 + 107 * 107 + 107 * 10


def test_a_synapse_without_a_rule_is_refused():
    net = ss.Network(block.cuba.KWTA(NEURON, 4, 3, 1), time_steps=4)
    with pytest.raises(ss.SpikestrapError, match="there is no rule to count a Competition"):
        ss.cost(net, torch.rand(6, 4))


def test_counting_leaves_the_network_as_it_was():
    net = network().train()
    net.blocks[1].eval()
    ss.cost(net, torch.rand(2, 1, 3, 3))
    assert net.training
    assert [block.training for block in net.blocks] == [True, False, True, True]
    assert not any(module._forward_hooks for module in net.modules())


def test_other_time_steps_are_refused():
    with pytest.raises(ss.SpikestrapError, match="the network runs 4 steps, got 5"):
        ss.cost(network(), torch.rand(2, 1, 3, 3), 5)
    chip = fixed.Network(fixed.from_network(network(), (1, 3, 3)).layers)
    with pytest.raises(ss.SpikestrapError, match="has none of its own"):
        ss.cost(chip, torch.rand(2, 1, 3, 3))


class Branches(nn.Module):
    """A front, and two branches behind it, added up."""

    def __init__(self, neuron, inputs, front=None):
        super().__init__()
        self.front = front
        self.first = block.cuba.Dense(neuron, inputs, 8, weight_scale=3.0)
        self.second = block.cuba.Dense(neuron, inputs, 8, weight_scale=3.0)
        self.add = block.Add()

    def forward(self, x, mode=ss.Mode.SNN):
        x = x if self.front is None else self.front(x)
        return self.add(self.first(x, mode=mode), self.second(x.clone(), mode=mode))


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("late", [False, True])
def test_every_branch_of_a_static_input_is_static(steps, late):
    inner = {"threshold": 0.5}
    net = ss.Network(Branches(inner, 10), block.cuba.Affine(None, 8, 3), time_steps=steps)
    net.blocks[0].first.delay_shift = late
    x = torch.rand(20, 10)
    found, added = ss.cost(net, x), net.blocks[0](ss.hold(x, steps))
    assert found.macs == 2 * 10 * 8
    assert found.synaptic_operations == pytest.approx(3 * float((added != 0).sum()) / 20)
    # Behind spikes neither branch is.
    front = block.cuba.Input({"threshold": 0.5}, delay_shift=late)
    net = ss.Network(front, *net.blocks, time_steps=steps)
    found, spikes = ss.cost(net, x), front(ss.hold(x, steps))
    expected = 2 * 8 * float(spikes.count_nonzero()) + 3 * float(
        net.blocks[1](spikes).count_nonzero()
    )
    assert found.macs == 10
    assert found.synaptic_operations == pytest.approx(expected / 20)


def test_every_branch_of_an_input_of_counts_gets_so_many_events():
    x = torch.tensor([3.0, 0.0, 1.0, 8.0]).view(4, 1, 1)
    silent = {"threshold": 1e4}
    net = ss.Network(Branches(silent, 1), block.cuba.Affine(None, 8, 3))
    assert ss.cost(net, x).synaptic_operations == 2 * 8 * 12
    pooled = nn.Sequential(block.AvgPool(2), block.Flatten())
    net = ss.Network(Branches(silent, 1, pooled), block.cuba.Affine(None, 8, 3))
    images = x.view(4, 1, 1, 1, 1).expand(4, 1, 1, 2, 2)
    assert ss.cost(net, images).synaptic_operations == 2 * 8 * 4 * 12


def test_what_makes_spikes_of_a_static_input_without_a_neuron():
    class EverySecond(nn.Module):
        def forward(self, x, mode=None):
            return x * (torch.arange(len(x)) % 2).view(-1, 1, 1)

    net = ss.Network(EverySecond(), block.cuba.Affine(None, 5, 3), time_steps=4)
    found = ss.cost(net, torch.ones(2, 5))
    assert (found.macs, found.synaptic_operations) == (0, 2 * 5 * 3)


class OwnReadout(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x, mode=None):
        return self.layer(x.mean(0))


class OwnScale(OwnReadout):
    def __init__(self):
        super().__init__(nn.Identity())
        self.scale = nn.Parameter(torch.ones(()))


def residual(*channels):
    return block.Residual(block.cuba.Conv, NEURON, *channels)


@pytest.mark.parametrize(
    ("last", "shape", "message"),
    [
        (residual(1, 1), (1, 4, 4), r"block 0 \(Residual\): cost: a Synapse is not counted where"),
        (residual(1, 2), (1, 4, 4), r"parameters of blocks\.0\.shortcut\.synapse\.layer \(Conv2d"),
        (OwnReadout(nn.Linear(8, 3)), (8,), r"parameters of blocks\.0\.layer \(Linear\) are not"),
        (OwnScale(), (8,), r"parameters of blocks\.0 \(OwnScale\) are not counted"),
        (
            OwnReadout(block.Affine(None, 8, 3)),
            (8,),
            r"expected spikes \(T, N, \.\.\.\) at Affine",
        ),
    ],
)
def test_what_is_not_counted_is_refused_not_miscounted(last, shape, message):
    with pytest.raises(ss.SpikestrapError, match=message):
        ss.cost(ss.Network(last, time_steps=2), torch.rand(1, *shape))


def test_counting_draws_what_running_draws():
    net = ss.Network(
        block.Dense(ss.neuron.NoisyLIF(1.0, 0.1, noise=0.5), 5, 8, weight_scale=3.0),
        block.Affine(None, 8, 3),
        time_steps=4,
    )
    x = torch.rand(6, 5)
    torch.manual_seed(0)
    spikes = net.blocks[0](ss.hold(x, 4))
    torch.manual_seed(0)
    assert ss.cost(net, x).spikes == float(spikes.sum()) / 6


def test_a_model_whose_synapses_are_unknown_is_refused():
    net = ss.bootstrap(
        nn.Sequential(nn.Linear(4, 3), snntorch.Leaky(beta=0.5, init_hidden=True)), 4
    )
    with pytest.raises(
        ss.SpikestrapError, match=r"expected a Network or a fixed\.Network.*Wrapped"
    ):
        ss.cost(net, torch.rand(2, 4))
