import pytest
import torch

from spikestrap import SpikestrapError
from spikestrap.neuron import Firing

V = torch.tensor([-0.5, 0.75, 1.0, 1.25, 3.5])


@pytest.mark.parametrize(
    ("reset", "after"),
    [
        ("zero", [-0.5, 0.75, 1.0, 0.0, 0.0]),
        ("subtract", [-0.5, 0.75, 1.0, 0.25, 2.5]),
        ("none", [-0.5, 0.75, 1.0, 1.25, 3.5]),
    ],
)
def test_fires_over_the_threshold_and_resets(reset, after):
    spikes, v = Firing(reset)(V, torch.tensor(1.0))
    assert spikes.tolist() == [0, 0, 0, 1, 1]  # 1.0, at the threshold, does not fire
    assert v.tolist() == after


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("reset", ["zero", "subtract", "none"])
def test_a_number_is_a_threshold_too(reset, dtype):
    results = []
    for threshold in (0.7, torch.tensor(0.7, dtype=dtype)):
        v = V.to(dtype).requires_grad_()
        spikes, after = Firing(reset, tau_grad=0.5)(v, threshold)
        results.append((spikes, after, torch.autograd.grad((spikes * V + after).sum(), v)[0]))
    torch.testing.assert_close(*results, rtol=0, atol=0)


@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("detach", [True, False])
def test_detached_reset_hides_its_spike_from_the_gradient(reset, detach):
    v = torch.tensor([0.5, 1.5], requires_grad=True)
    theta, slope = 1.0, torch.exp(-torch.tensor([0.5, 0.5])) / 2
    _, after = Firing(reset, detach_reset=detach)(v, torch.tensor(theta))
    after.sum().backward()
    # v - s v or v - s theta, with or without the surrogate slope of s.
    fired = torch.tensor([0.0, 1.0])
    expected = 1 - fired if reset == "zero" else torch.ones(2)
    if not detach:
        expected = expected - slope * (v.detach() if reset == "zero" else theta)
    torch.testing.assert_close(v.grad, expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reset": "soft"}, "reset must be one of zero, subtract, none; got 'soft'"),
        ({"surrogate": "relu"}, "surrogate must be one of .*; got 'relu'"),
        ({"tau_grad": 0}, "tau_grad must be a number > 0, got 0"),
        ({"tau_grad": -1.0}, "tau_grad must be a number > 0, got -1.0"),
        ({"scale_grad": float("inf")}, "scale_grad must be a number > 0, got inf"),
        ({"scale_grad": float("nan")}, "scale_grad must be a number > 0, got nan"),
        ({"scale_grad": "1"}, "scale_grad must be a number > 0, got '1'"),
    ],
)
def test_refuses(settings, message):
    with pytest.raises(SpikestrapError, match=message):
        Firing(**settings)
