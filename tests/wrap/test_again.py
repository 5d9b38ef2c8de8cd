"""`torch.utils.checkpoint`: around a wrapped model it is right, inside one it is refused."""

import copy
from functools import partial

import pytest
import snntorch as snn
import torch
from spikingjelly.activation_based import neuron
from torch import nn
from torch.utils.checkpoint import checkpoint

import spikestrap as ss
from spikestrap import SpikestrapError

ANN, SNN, SAMPLE, FIT = ss.Mode.ANN, ss.Mode.SNN, ss.Mode.SAMPLE, ss.Mode.FIT
T = 4
X = 3 * torch.rand(16, 6, generator=torch.Generator().manual_seed(0))
reentrant = pytest.mark.parametrize("reentrant", [True, False])


def model(*norm):
    return nn.Sequential(
        nn.Linear(6, 8), *norm, snn.Leaky(beta=0.9, init_hidden=True), nn.Linear(8, 3)
    )


def fit(net):
    for mode in (SAMPLE, FIT, ANN, SNN):
        net(X, mode)
    return net


def gradients(net, run):
    net.zero_grad()
    run(X.clone().requires_grad_()).square().sum().backward()
    return [p.grad for p in net.parameters() if p.requires_grad]


@reentrant
@pytest.mark.parametrize(
    ("norm", "mode"), [((), SNN), ((), ANN), ((nn.BatchNorm1d(8),), ANN)], ids=str
)
def test_around_a_model_gradients_are_the_same(norm, mode, reentrant):
    net = fit(ss.bootstrap(model(*copy.deepcopy(norm)), time_steps=T))
    plain = gradients(net, lambda x: net(x, mode))
    again = gradients(net, lambda x: checkpoint(net, x, mode, use_reentrant=reentrant))
    for one, other in zip(plain, again, strict=True):
        torch.testing.assert_close(one, other)


@reentrant
@pytest.mark.parametrize("mode", [SNN, SAMPLE, [SNN, ANN]], ids=str)
def test_around_batch_norms_in_training_a_pass_on_spikes_is_refused(mode, reentrant):
    two = nn.Sequential(*model(nn.BatchNorm1d(8)), snn.Leaky(beta=0.9, init_hidden=True))
    net = fit(ss.bootstrap(two if isinstance(mode, list) else two[:-1], time_steps=T))
    run = lambda x: checkpoint(net, x, mode, use_reentrant=reentrant)  # noqa: E731
    with pytest.raises(SpikestrapError, match="running statistics of its batch norms have moved"):
        gradients(net, run)
    net.eval()
    assert all(grad is not None for grad in gradients(net, run))


class Inside(nn.Module):
    """A part of the forward is called by `call`."""

    def __init__(self, call):
        super().__init__()
        self.call, self.features = call, nn.Linear(6, 6)
        self.early, self.lif = neuron.IFNode(), neuron.IFNode()
        self.norm, self.hidden, self.readout = nn.BatchNorm1d(8), nn.Linear(6, 8), nn.Linear(8, 3)

    def part(self, x):
        return self.lif(self.norm(self.hidden(x)))

    def forward(self, x):
        with torch.no_grad():  # they are computed once
            frozen = self.early(self.features(x))
        return self.readout(self.call(self.part, x + frozen))


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("mode", [ANN, SNN])
def test_inside_a_model_it_is_refused(mode):
    net = fit(ss.bootstrap(Inside(lambda part, x: part(x)), time_steps=T))
    net.model.call = lambda part, x: checkpoint(part, x, use_reentrant=True)
    with pytest.raises(SpikestrapError, match="Checkpoint around the network, not inside it"):
        net(X.clone().requires_grad_(), mode)
    with torch.no_grad():  # nothing will be computed again
        assert net(X, mode).shape == (16, 3)


def test_without_a_neuron_or_norm_in_it_a_part_may_be_computed_again():
    class Apart(Inside):
        def part(self, x):
            return self.hidden(x)

        def forward(self, x):
            return self.readout(self.lif(self.call(self.part, x)))

    part = Apart(lambda part, x: part(x))
    for unused in ("early", "features", "norm"):
        delattr(part, unused)
    net = fit(ss.bootstrap(part, time_steps=T))
    twin = copy.deepcopy(net)
    twin.model.call = lambda part, x: checkpoint(part, x, use_reentrant=True)
    for mode in (ANN, SNN):
        plain, again = (gradients(n, partial(n, mode=mode)) for n in (net, twin))
        for one, other in zip(plain, again, strict=True):
            assert torch.equal(one, other)
