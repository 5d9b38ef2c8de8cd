import nir
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import spikestrap as ss
from spikestrap.exchange.nir.dynamics import from_nodes, to_nodes
from spikestrap.exchange.nir.interpreter import run

CUBA, LIF, IF = ss.neuron.CUBA, ss.neuron.LIF, ss.neuron.IF


def kinds(neuron, **options):
    return [type(node).__name__ for node in to_nodes(neuron, (3,), 1e-4, **options)]


def graph_of(nodes):
    return nir.NIRGraph.from_list(*nodes)


def test_the_node_has_the_leaks_that_the_neuron_has():
    assert kinds(CUBA(1.0, 0.3, 0.1)) == ["CubaLIF"]
    assert kinds(CUBA(1.0, 1.0, 0.1)) == ["LIF"]
    assert kinds(CUBA(1.0, 1.0, 0.0)) == ["IF"]
    assert kinds(CUBA(1.0, 0.3, 0.0)) == ["LI", "IF"]
    assert kinds(CUBA(1.0, 0.0, 0.1)) == ["I", "LIF"]
    assert kinds(CUBA(1.0, 0.0, 0.0)) == ["I", "IF"]
    assert kinds(LIF(1.0, 0.1)) == ["LIF"]
    assert kinds(LIF(1.0, 0.0)) == ["IF"]
    assert kinds(IF(1.0)) == ["IF"]


def test_derived_by_hand():
    # current_decay 1/4, voltage_decay 1/2, dt 1 ms: tau_syn 4 ms, w_in 4, tau_mem 2 ms, R 2.
    (node,) = to_nodes(CUBA(1.5, 0.25, 0.5), (2,), 1e-3)
    np.testing.assert_allclose(node.tau_syn, 4e-3)
    np.testing.assert_allclose(node.tau_mem, 2e-3)
    assert node.w_in.tolist() == [4, 4]
    assert node.r.tolist() == [2, 2]
    assert node.v_threshold.tolist() == [1.5, 1.5]
    assert node.v_leak.tolist() == node.v_reset.tolist() == [0, 0]


decays = st.floats(0, 1, width=32).filter(lambda d: d == 0 or d > 1e-6)


@given(decays, decays, st.floats(0.0625, 8, width=32), st.sampled_from([1e-4, 1e-3, 0.3, 1.0]))
def test_there_and_back_is_exact(current_decay, voltage_decay, threshold, dt):
    for neuron in (
        CUBA(threshold, current_decay, voltage_decay),
        LIF(threshold, voltage_decay),
        IF(threshold),
    ):
        again = from_nodes(to_nodes(neuron, (3,), dt), dt)
        assert type(again) is type(neuron)
        assert again.state_dict() == neuron.state_dict()


def test_there_and_back_is_exact_next_to_a_decay_of_1():
    near = np.nextafter(np.float32(1), np.float32(0))
    again = from_nodes(to_nodes(CUBA(1.0, near, near), (3,), 0.3), 0.3)
    assert again.current_decay.item() == again.voltage_decay.item() == near


@pytest.mark.parametrize("decay", [1 - 1.2e-7, 1 + 1.2e-7])
def test_a_tau_of_one_step_up_to_rounding_in_float32_is_a_decay_of_1(decay):
    one = np.ones(3, np.float32)
    node = nir.LIF(tau=one / np.float32(decay), r=one, v_leak=0 * one, v_threshold=one)
    assert from_nodes([node], 1.0).voltage_decay.item() == 1


@given(
    st.sampled_from([0.0, 0.125, 0.5, 1.0]),
    st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    st.sampled_from(["zero", "subtract", "none"]),
    st.integers(0, 100),
)
def test_euler_of_the_nodes_is_the_neuron(current_decay, voltage_decay, reset, seed):
    # Powers of two, so that neither side rounds and ties are ties on both.
    neuron = CUBA(1.0, current_decay, voltage_decay, reset=reset, v_init=0.25)
    nodes = to_nodes(neuron, (5,), 0.5, allow=("reset", "v_init"))
    generator = torch.Generator().manual_seed(seed)
    z = torch.randint(-2, 8, (6, 3, 5), generator=generator) / 8
    outputs, _ = run(graph_of(nodes), z, 0.5)
    assert torch.equal(outputs["output"], neuron(z).double())


def test_threshold_is_strict():
    nodes = to_nodes(LIF(1.0, 0.5), (1,), 1.0)
    z = torch.tensor([1.0, 0.5, 0.75]).view(3, 1, 1)
    # v: 1 (no spike, strictly), 1, 1.25
    outputs, membranes = run(graph_of(nodes), z, 1.0)
    assert outputs["lif"].flatten().tolist() == [0, 0, 1]
    assert membranes["lif"].flatten().tolist() == [1, 1, 1.25]


def test_values_per_channel_keep_their_channel():
    threshold, decay = torch.tensor([1.0, 2.0]), torch.tensor([0.25, 0.5])
    neuron = LIF(threshold, decay)
    (node,) = to_nodes(neuron, (2, 3, 3), 1e-4)
    assert node.v_threshold.shape == (2, 3, 3)
    assert (node.v_threshold[1] == 2).all()
    again = from_nodes([node], 1e-4)
    assert torch.equal(again.threshold, threshold)
    assert torch.equal(again.voltage_decay, decay)


def test_learnt_parameters_are_written_as_they_act():
    neuron = LIF(1.0, 0.5, learnable=("voltage_decay",))
    with torch.no_grad():
        neuron.voltage_decay.fill_(1.5)  # acts as 1
    (node,) = to_nodes(neuron, (1,), 1.0)
    assert node.tau.tolist() == [1.0]


@pytest.mark.parametrize(
    ("neuron", "message"),
    [
        (LIF(1.0, 0.1, reset="subtract"), "only knows the reset to v_reset"),
        (LIF(1.0, 0.1, v_init=0.5), "no first value of the membrane"),
        (LIF(1.0, torch.tensor([0.0, 0.1, 0.2])), "voltage_decay is 0 in some channels"),
        (CUBA(1.0, torch.tensor([0.0, 0.1, 0.2])), "current_decay is 0 in some channels"),
        (LIF(torch.ones(2), 0.1), "2 values, one a channel, for features of shape"),
    ],
)
def test_what_nir_cannot_say_is_refused(neuron, message):
    with pytest.raises(ss.SpikestrapError, match=message):
        to_nodes(neuron, (3,), 1e-4)


def test_a_neuron_of_ones_own_is_refused():
    class Other(LIF):
        def step(self, z, state):
            return super().step(2 * z, state)

    with pytest.raises(ss.SpikestrapError, match="got the neuron Other"):
        to_nodes(Other(1.0, 0.1), (3,), 1e-4)


def test_firing_survives_in_the_metadata():
    neuron = LIF(
        1.0,
        0.1,
        reset="subtract",
        v_init=torch.tensor([0.5, 0.25, 0.0]),
        surrogate="arctan",
        tau_grad=0.5,
        detach_reset=False,
    )
    again = from_nodes(to_nodes(neuron, (3,), 1e-4, allow=("reset", "v_init")), 1e-4)
    assert again.firing == neuron.firing
    assert torch.equal(again.v_init, neuron.v_init)


def arrays(**values):
    return {name: np.full(3, float(value)) for name, value in values.items()}


def foreign(nodes, dt, z):
    """Spikes of the nodes' own equations from rest, and those of the neuron made of them."""
    outputs, _ = run(graph_of(nodes), z, dt)
    return outputs["output"], from_nodes(nodes, dt)(z).double()


@pytest.mark.parametrize(
    "node",
    [
        nir.LIF(**arrays(tau=0.5, r=3, v_leak=0, v_reset=0, v_threshold=0.6)),
        nir.IF(**arrays(r=3, v_reset=0, v_threshold=0.6)),
        nir.CubaLIF(
            **arrays(tau_syn=0.25, tau_mem=0.5, r=3, w_in=2, v_leak=0, v_reset=0, v_threshold=0.6)
        ),
    ],
)
def test_factors_of_other_tools_go_into_the_threshold(node):
    z = torch.rand(8, 16, 3)
    expected, got = foreign([node], 0.1, z)
    assert expected.any()
    assert torch.equal(got, expected)


def test_a_rest_that_is_not_zero_is_the_new_zero():
    node = nir.LIF(**arrays(tau=0.5, r=3, v_leak=-2, v_reset=-2, v_threshold=-1.5))
    node.metadata["v_init"] = -2.0
    expected, got = foreign([node], 0.1, torch.rand(8, 16, 3))
    assert expected.any()
    assert torch.equal(got, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tau": 1e-5}, "shorter than dt"),
        ({"tau": 0.0}, "tau must be > 0"),
        ({"tau": np.nan}, "tau must be finite"),
        ({"tau": np.inf}, "tau must be finite"),
        ({"r": -1.0}, "factor must be > 0"),
        ({"v_leak": 0.5}, "v_leak and v_reset must be equal"),
        ({"v_threshold": 0.0}, "v_threshold must lie above v_reset"),
    ],
)
def test_wrong_parameters_are_named(change, message):
    values = {"tau": 1e-3, "r": 1.0, "v_leak": 0.0, "v_reset": 0.0, "v_threshold": 1.0, **change}
    with pytest.raises(ss.SpikestrapError, match=message):
        from_nodes([nir.LIF(**arrays(**values))], 1e-4)


def test_parameters_that_differ_within_a_channel_are_refused():
    values = arrays(r=1, v_reset=0, v_threshold=1)
    values = {name: np.tile(value, (3, 1)) for name, value in values.items()}
    values["v_threshold"][1, 2] = 2
    with pytest.raises(ss.SpikestrapError, match="threshold differs within a channel"):
        from_nodes([nir.IF(**values)], 1e-4)


@pytest.mark.parametrize(
    "meta", [{"reset": "up"}, {"reset": 3}, {"tau_grad": "x"}, {"v_init": "x"}]
)
def test_wrong_metadata_is_refused(meta):
    node = nir.IF(**arrays(r=1, v_reset=0, v_threshold=1), metadata=meta)
    with pytest.raises(ss.SpikestrapError):
        from_nodes([node], 1e-4)
