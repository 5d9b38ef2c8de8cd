"""Blocks of the other neurons: those of spikestrap.block, time last."""

import pytest
import torch

import spikestrap as ss
import spikestrap.lava_dl.slayer as slayer

LEAKS = {"current_decay": 0.25, "voltage_decay": 0.1}
ADAPTS = {"threshold_step": 0.5, "threshold_decay": 0.1, "refractory_decay": 0.5}
RESONATES = {"period": 8.0, "decay": 0.1}
NEURONS = {
    "alif": {**LEAKS, **ADAPTS},
    "rf": RESONATES,
    "rf_iz": RESONATES,
    "adrf": {**RESONATES, **ADAPTS},
    "adrf_iz": {**RESONATES, **ADAPTS},
    "sigma_delta": {"activation": torch.relu},
}
GRADIENT = {"tau_grad": 100.0, "scale_grad": 0.1}


@pytest.mark.parametrize("kind", ["Dense", "Conv"])
@pytest.mark.parametrize("name", NEURONS)
def test_is_the_block_time_first(name, kind):
    here, there = getattr(ss.block, name), getattr(slayer.block, name)
    params = {"threshold": 0.25, **NEURONS[name]}
    size = (2, 3, 3) if kind == "Conv" else (12, 7)
    block = getattr(there, kind)(params, *size, weight_scale=2, delay_shift=False)
    plain = kind if name in ("alif", "sigma_delta") else f"Complex{kind}"
    ours = {**params, **GRADIENT}
    if "activation" in ours:
        ours["activation"] = "relu"
    same = getattr(here, plain)(ours, *size, weight_scale=2.0)
    same.load_state_dict(block.block.state_dict())
    x = (torch.rand(5, *((2, 6, 6) if kind == "Conv" else (12,)), 10) < 0.5).float()
    y = block(x)
    assert torch.equal(y.movedim(-1, 0), same(x.movedim(-1, 0), mode=ss.Mode.SNN))
    assert y.any()
    learns = getattr(there, kind)({**params, "requires_grad": True}, *size)
    assert any("neuron" in parameter for parameter, _ in learns.named_parameters())


def test_shift_of_direct_training():
    assert slayer.block.alif.Dense({"threshold": 1.0, **NEURONS["alif"]}, 2, 2).block.delay_shift
    neuron = {"threshold": 0.1, **NEURONS["sigma_delta"]}
    assert not slayer.block.sigma_delta.Dense(neuron, 2, 2).block.delay_shift


def test_sigma_delta_network_sums_up_what_an_ordinary_one_computes():
    sd = slayer.block.sigma_delta
    neuron = {"threshold": 1 / 64, "activation": torch.nn.functional.relu}
    layers = torch.nn.Sequential(
        sd.Input(neuron, weight=1, bias=0), sd.Dense(neuron, 6, 20), sd.Output(neuron, 20, 3)
    )
    x = torch.rand(4, 6)
    y = layers(slayer.utils.time.replicate(x, 5))
    assert y.shape == (4, 3, 5)
    hidden = torch.relu(x @ layers[1].synapse.weight.T)
    torch.testing.assert_close(y[..., -1], hidden @ layers[2].synapse.weight.T, atol=0.1, rtol=0)


@pytest.mark.parametrize("name", ["Input", "Dense"])
def test_the_gradient_of_a_sigma_delta_threshold_is_that_of_lava_dl_where_it_sends(name):
    neuron = {"threshold": 0.26, "tau_grad": 0.5, "scale_grad": 3, "requires_grad": True}
    neuron["activation"] = torch.nn.Identity()
    sd = slayer.block.sigma_delta
    block = sd.Input(neuron) if name == "Input" else sd.Dense(neuron, 6, 6)
    if name == "Dense":
        block.synapse.weight = torch.eye(6)
    x, weight = torch.linspace(-1, 1, 6).view(1, 6, 1), torch.rand(1, 6, 1)
    (weight * block(x)).sum().backward()
    threshold = 0.25
    # lava-dl, slayer.axon.delta, where a change x is sent; x = 0.2 is not, and has a part here.
    slope = 3 * torch.exp(-(x.abs() - threshold).abs() / 0.5) / threshold
    expected = -(weight * x * slope).sum()
    assert (x.abs() < threshold).sum() == 2
    torch.testing.assert_close(block.neuron.threshold.grad, expected)


def test_sigma_delta_blocks_with_a_norm_train():
    sd = slayer.block.sigma_delta
    neuron = {
        "threshold": 0.1,
        "tau_grad": 0.1,
        "scale_grad": 3,
        "requires_grad": True,
        "shared_param": True,
        "activation": torch.relu,
    }
    normed = {**neuron, "norm": slayer.neuron.norm.MeanOnlyBatchNorm}
    dropped = {**normed, "dropout": slayer.neuron.Dropout(p=0.2)}
    size = {"weight_scale": 2, "weight_norm": True}
    layers = torch.nn.Sequential(
        sd.Input(neuron),
        sd.Conv(normed, 3, 8, 3, padding=0, stride=2, **size),
        sd.Flatten(),
        sd.Dense(dropped, 8 * 3 * 2, 5, **size),
        sd.Output(dropped, 5, 1, **size),
    )
    y = layers(torch.rand(4, 3, 7, 5, 6))
    assert y.shape == (4, 1, 6)
    y.square().sum().backward()
    normed = layers[1].neuron
    assert (normed.norm.bias.grad != 0).any()
    assert normed.norm.running_mean.any()
    assert (normed.threshold.grad != 0).any()
    assert normed.threshold is normed.neuron.threshold


def test_resonators_have_complex_weights():
    block = slayer.block.rf.Dense({"threshold": 0.1, **RESONATES}, 4, 3)
    assert block.synapse.shape == (3, 4)
    assert block.synapse.grad_norm == 0
    block((torch.rand(5, 4, 20) < 0.5).float()).sum().backward()
    parts = [block.block.synapse.real.layer.weight, block.block.synapse.imag.layer.weight]
    assert torch.equal(block.synapse.imag.weight, parts[1])
    expected = torch.stack([part.grad for part in parts]).norm().item() / 12
    assert block.synapse.grad_norm == pytest.approx(expected)
    assert expected > 0
    mask = torch.ones(3, 4)
    with pytest.raises(ss.SpikestrapError, match="mask is not carried over for complex"):
        slayer.block.rf.Dense({"threshold": 1.0, **RESONATES}, 4, 3, mask=mask)
