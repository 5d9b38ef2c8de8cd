"""Classifiers, losses, filters, time and the assistant: values worked by hand or by torch."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

import spikestrap as ss
import spikestrap.lava_dl.slayer as slayer


def spikes(*shape):
    return (torch.rand(*shape) < 0.4).float()


def test_replicate_is_a_view():
    x = torch.rand(2, 3, 4)
    y = slayer.utils.time.replicate(x, 5)
    assert y.shape == (2, 3, 4, 5)
    assert y.data_ptr() == x.data_ptr()
    assert torch.equal(y[..., 3], x)
    with pytest.raises(ss.SpikestrapError, match="num_steps"):
        slayer.utils.time.replicate(x, 0)


@given(st.integers(-7, 7), st.integers(1, 6))
def test_shift_by_a_number(steps, length):
    x = torch.arange(1.0, 1 + 2 * length).view(1, 2, length)
    y = slayer.utils.time.shift(x, steps)
    for t in range(length):
        source = t - steps
        expected = x[..., source] if 0 <= source < length else torch.zeros(1, 2)
        assert torch.equal(y[..., t], expected)


def test_shift_of_each_neuron():
    x = spikes(3, 2, 2, 6)
    by = torch.tensor([0.0, 1.0, -2.0, 9.0])
    y = slayer.utils.time.shift(x, by)
    each = [slayer.utils.time.shift(x.flatten(1, 2)[:, i], n.item()) for i, n in enumerate(by)]
    assert torch.equal(y.flatten(1, 2), torch.stack(each, 1))
    assert torch.equal(slayer.axon.delay(x, 4, 2), slayer.utils.time.shift(x, 2))
    with pytest.raises(ss.SpikestrapError, match="expected one number or 4"):
        slayer.utils.time.shift(x, torch.ones(3))


def test_filter_is_a_causal_convolution():
    x = torch.rand(2, 3, 20)
    y = slayer.utils.filter.FIR(time_constant=2.0, length=8, sampling_time=2)(x)
    response = np.exp(-np.arange(8) / 2.0)
    expected = [[2 * np.convolve(row, response)[:20] for row in rows] for rows in x.numpy()]
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-5)


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
    assert slayer.loss.SpikeMax(mode="softmax")(x, label).item() == pytest.approx(expected.item())
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


def test_quantize():
    mode = slayer.utils.QUANTIZE_MODE
    x = torch.tensor([-0.6, 0.3, 0.9, 1.0], requires_grad=True)
    assert slayer.utils.quantize(x, 0.5).tolist() == [-0.5, 0.5, 1.0, 1.0]
    y = slayer.utils.quantize(x, 0.5, mode.FLOOR)
    assert y.tolist() == [-1.0, 0.0, 0.5, 1.0]
    y.sum().backward()
    assert x.grad.tolist() == [1.0] * 4
    with pytest.raises(ss.SpikestrapError, match="QUANTIZE_MODE"):
        slayer.utils.quantize(x, 0.5, 7)


def test_neuron_by_itself():
    neuron = slayer.neuron.cuba.Neuron(1.25, 0.25, 0.125, requires_grad=True)
    params = neuron.device_params
    assert (params["iDecay"], params["vDecay"], params["vThMant"]) == (1024, 512, 80)
    assert slayer.neuron.cuba.neuron_params(params) == {
        "threshold": 1.25,
        "current_decay": 0.25,
        "voltage_decay": 0.125,
    }
    z = torch.rand(3, 4, 16)
    chip = ss.neuron.ChipCUBA(ss.neuron.CUBA(1.25, 0.25, 0.125))
    on_grid = (4096 * z).round() / 4096
    assert torch.equal(neuron(z), chip(on_grid.movedim(-1, 0)).movedim(0, -1))
    assert len(list(neuron.parameters())) == 2
    with pytest.raises(ss.SpikestrapError, match="norm and dropout"):
        slayer.neuron.cuba.Neuron(1.25, 0.25, 0.125, dropout=0.5)


def test_dropout_is_the_same_at_every_step():
    dropout, x = slayer.neuron.Dropout(p=0.5), torch.ones(50, 20, 6)
    y = dropout(x)
    assert set(y.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(y[..., :1].expand_as(y), y)
    assert torch.equal(dropout.eval()(x), x)


class Net(torch.nn.Module):
    """Gives what an assistant may be told to expect."""

    def __init__(self, *more):
        super().__init__()
        self.layer, self.more = torch.nn.Linear(4, 2), more

    def forward(self, x):
        y = self.layer(x)
        return (y, *(m(y) for m in self.more)) if self.more else y


@pytest.mark.parametrize("count_log", [False, True])
@pytest.mark.parametrize("lam", [None, 0.5])
def test_assistant(count_log, lam):
    extra = lambda y: y.square().sum()  # noqa: E731
    count = lambda y: "count"  # noqa: E731
    net = Net(*([] if lam is None else [extra]), *([count] if count_log else []))
    stats = slayer.utils.LearningStats()
    assistant = slayer.utils.Assistant(
        net,
        F.cross_entropy,
        torch.optim.SGD(net.parameters(), lr=0.1),
        stats,
        lambda y: y.argmax(1),
        count_log,
        lam,
    )
    x, label = torch.rand(6, 4), torch.randint(2, (6,))
    weight = net.layer.weight.detach().clone().requires_grad_()
    y = F.linear(x, weight, net.layer.bias.detach())
    error = F.cross_entropy(y, label)
    (error if lam is None else error + lam * y.square().sum()).backward()
    given = assistant.train(x, label)
    torch.testing.assert_close(net.layer.weight, weight - 0.1 * weight.grad)
    assert (given[1] == "count") if count_log else torch.equal(given, y)
    assert stats.training.loss == pytest.approx(error.item())
    assert stats.training.accuracy == pytest.approx((y.argmax(1) == label).float().mean().item())
    for name, part in (("test", stats.testing), ("valid", stats.validation)):
        given = getattr(assistant, name)(x, label)
        assert not (given[0] if count_log else given).requires_grad
        assert part.num_samples == 6
        assert not net.training
    assistant.reduce_lr(2)
    assert assistant.optimizer.param_groups[0]["lr"] == 0.05
