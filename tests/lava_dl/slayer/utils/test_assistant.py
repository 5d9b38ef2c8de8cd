"""Steps against those of torch by hand."""

import pytest
import torch
import torch.nn.functional as F

import spikestrap.lava_dl.slayer as slayer


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
