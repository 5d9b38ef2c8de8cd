"""Losses, worked by hand or by torch's."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.lava_dl.cases import spikes

import spikestrap as ss
import spikestrap.lava_dl.slayer as slayer


def test_rate_loss():
    x, label = spikes(4, 3, 10), torch.tensor([0, 2, 1, 1])
    target = torch.full((4, 3), 0.1)
    target[range(4), label] = 0.8
    loss = slayer.loss.SpikeRate(0.8, 0.1)
    assert loss(x, label).item() == pytest.approx(((x.mean(-1) - target) ** 2).sum().item())
    loss = slayer.loss.SpikeRate(0.8, 0.1, moving_window=4, reduction="mean")
    rate = slayer.classifier.MovingWindow(4).rate(x)
    expected = ((rate - target[..., None]) ** 2).mean().item()
    assert loss(x, label).item() == pytest.approx(expected)
    assert loss(x, label[:, None].expand(4, 10)).item() == pytest.approx(expected)
    with pytest.raises(ss.SpikestrapError, match="true_rate"):
        slayer.loss.SpikeRate(2, 0)


def test_max_loss():
    x, label = spikes(4, 3, 10), torch.tensor([0, 2, 1, 1])
    x[..., 0] = 1
    expected = F.nll_loss(F.log_softmax(x.mean(-1), 1), label, reduction="sum")
    for mode in ("softmax", "logsoftmax"):
        assert slayer.loss.SpikeMax(mode=mode)(x, label).item() == pytest.approx(expected.item())
    p = x.sum(-1) / x.sum((1, 2))[:, None]
    expected = -p[range(4), label].log().mean()
    loss = slayer.loss.SpikeMax(reduction="mean")(x, label)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    rate = slayer.classifier.MovingWindow(4).rate(x)
    logs = F.log_softmax(rate, 1)
    expected = -sum(logs[i, c].sum() for i, c in enumerate(label.tolist()))
    loss = slayer.loss.SpikeMax(4, "softmax")(x, label)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_max_loss_of_a_silent_label_is_finite():
    x = torch.zeros(1, 2, 4, requires_grad=True)
    loss = slayer.loss.SpikeMax()(x, torch.tensor([1]))
    loss.backward()
    assert math.isfinite(loss.item())
    assert torch.isfinite(x.grad).all()


def test_moid_loss():
    x, label = spikes(4, 3, 10), (torch.rand(4, 3) < 0.5).float()
    p = torch.sigmoid((x.mean(-1) - 0.2) / 0.5)
    expected = F.binary_cross_entropy(p, label, reduction="sum").item()
    loss = slayer.loss.SpikeMoid(alpha=0.5, theta=0.2)(x, label)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    p = torch.sigmoid(slayer.classifier.MovingWindow(4).rate(x))
    full = label[..., None].expand(4, 3, 10)
    expected = F.binary_cross_entropy(p, full, reduction="mean").item()
    loss = slayer.loss.SpikeMoid(4, "mean")
    assert loss(x, label).item() == pytest.approx(expected, rel=1e-5)
    assert loss(x, full).item() == pytest.approx(expected, rel=1e-5)


def test_time_loss():
    x, y = spikes(2, 3, 20), spikes(2, 3, 20)
    response = np.exp(-np.arange(7) / 5)
    for order in (1, 2):
        h = response if order == 1 else np.convolve(response, response)[:7]
        difference = [np.convolve(row, h)[:20] for row in (x - y).view(-1, 20).numpy()]
        loss = slayer.loss.SpikeTime(5, 7, order)(x, y)
        assert loss.item() == pytest.approx(np.square(difference).sum(), rel=1e-4)


def test_time_loss_counts_neurons_whatever_their_axes():
    x, y = spikes(4, 3, 20), spikes(4, 3, 20)
    loss = slayer.loss.SpikeTime()
    expected = loss(x, y)
    assert torch.equal(loss(x.view(4, 3, 1, 1, 20), y), expected)
    assert torch.equal(loss(x, y.view(4, 1, 3, 1, 20)), expected)
    torch.testing.assert_close(sum(loss(x[:, c], y[:, c]) for c in range(3)), expected)
    for wrong in (y[:, :2], y[..., :10], y[:1], y.movedim(-1, 1)):
        with pytest.raises(ss.SpikestrapError, match=r"SpikeTime: expected spikes \(4, 3, 20\)"):
            loss(x, wrong)


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize(
    "make", [lambda w: slayer.loss.SpikeRate(0.5, 0.1, w), slayer.loss.SpikeMax]
)
def test_labels_are_whole_numbers_of_any_width(make, window):
    x, label = spikes(4, 3, 10), torch.tensor([0, 2, 1, 1])
    loss = make(window)
    expected = loss(x, label)
    for kind in (torch.uint8, torch.int8, torch.int32):
        assert torch.equal(loss(x, label.to(kind)), expected)
    if window is None:
        assert torch.equal(loss(x, label[:, None]), expected)
    name = type(loss).__name__
    for wrong, told in [
        (torch.tensor([0, 2, 1, 3]), "labels from 0 to 2, as the output has 3 classes; got 3"),
        (torch.tensor([0, 2, -1, 1]), "labels from 0 to 2, as the output has 3 classes; got -1"),
        (label.float(), "labels in whole numbers, got torch.float32"),
        (label > 0, "labels in whole numbers, got torch.bool"),
        (label[:3], r"labels \(4,\), one for each of the batch.*; got shape \(3,\)"),
        (label[:, None].expand(4, 9), r"labels \(4,\).*; got shape \(4, 9\)"),
    ]:
        with pytest.raises(ss.SpikestrapError, match=f"{name}: expected {told}"):
            loss(x, wrong)
    with pytest.raises(ss.SpikestrapError, match=f"{name}: label: expected a tensor, got list"):
        loss(x, label.tolist())


def test_max_loss_leaves_out_what_has_no_label():
    x, label = spikes(4, 3, 10), torch.tensor([0, 2, -100, 1])
    kept = label >= 0
    loss = slayer.loss.SpikeMax(mode="softmax")
    assert torch.equal(loss(x, label), loss(x[kept], label[kept]))


def test_moid_loss_wants_a_label_for_each_class():
    x, label = spikes(4, 3, 10), (torch.rand(4, 3) < 0.5).float()
    loss = slayer.loss.SpikeMoid()
    assert torch.equal(loss(x, label.long()), loss(x, label))
    assert torch.equal(loss(x, label.view(4, 3, 1, 1)), loss(x, label))
    with pytest.raises(ss.SpikestrapError, match=r"each class, \(4, 3\), got shape \(4,\)"):
        loss(x, torch.tensor([0, 2, 1, 1]))


@pytest.mark.parametrize(
    "make",
    [
        slayer.loss.SpikeTime,
        slayer.loss.SpikeMax,
        slayer.loss.SpikeMoid,
        lambda **more: slayer.loss.SpikeRate(0.5, 0.1, **more),
    ],
)
def test_what_no_loss_can_take(make):
    x = spikes(4, 3, 10)
    loss = make()
    name = type(loss).__name__
    for wrong, told in [
        (x.numpy(), "expected a tensor, got ndarray"),
        (x.long(), "expected floating-point spikes or rates, got torch.int64"),
        (x[..., 0], r"expected spikes .*\(4, 3\)"),
    ]:
        with pytest.raises(ss.SpikestrapError, match=f"{name}: {told}"):
            loss(wrong, x)
    with pytest.raises(ss.SpikestrapError, match=f"{name}: reduction must be one of sum, mean"):
        make(reduction="all")
