"""Classifiers, worked by hand."""

import pytest
import torch
from tests.lava_dl.cases import spikes

import spikestrap as ss
import spikestrap.lava_dl.slayer as slayer


def test_rate_classifier():
    rate, x = slayer.classifier.Rate, spikes(6, 5, 20)
    counts = x.sum(-1)
    assert torch.equal(rate()(x), counts.argmax(1))
    torch.testing.assert_close(rate.rate(x), counts / 20)
    sums = counts.sum(1, keepdim=True) / 20
    torch.testing.assert_close(rate.confidence(x), counts / 20 / (sums + 1e-6))
    torch.testing.assert_close(
        rate.confidence(x, "logsoftmax").exp(), rate.confidence(x, "softmax")
    )
    assert torch.equal(rate.predict(x.view(6, 5, 1, 1, 20)), rate.predict(x))
    with pytest.raises(ss.SpikestrapError, match="mode must be"):
        rate.confidence(x, "sum")


def test_moving_window_classifier():
    window, x = slayer.classifier.MovingWindow(3), spikes(6, 5, 10)
    for t in range(10):
        part = x[..., max(0, t - 2) : t + 1].sum(-1) / 3
        torch.testing.assert_close(window.rate(x)[..., t], part)
        torch.testing.assert_close(
            window.confidence(x)[..., t], part / (part.sum(1, keepdim=True) + 1e-6)
        )
    assert torch.equal(window(x), window.rate(x).argmax(1))
    assert window.confidence(x, "softmax").shape == x.shape


def test_what_no_classifier_can_take():
    with pytest.raises(ss.SpikestrapError, match="time_window must be a whole number >= 1, got 0"):
        slayer.classifier.MovingWindow(0)
    for wrong in (spikes(6, 5), spikes(6, 5, 10).numpy()):
        with pytest.raises(ss.SpikestrapError, match="Rate: expected"):
            slayer.classifier.Rate.predict(wrong)
