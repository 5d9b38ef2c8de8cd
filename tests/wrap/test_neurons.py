"""Every listed neuron: spikes of the wrapped model are those of the library's own run."""

import norse.torch as norse
import pytest
import sinabs.layers as sl
import snntorch as snn
import torch
from sinabs.activation import MaxSpike, MembraneReset, SingleSpike
from spikingjelly.activation_based import functional, neuron
from torch import nn

import spikestrap as ss

T = 6
P = norse.LIFParameters(tau_syn_inv=torch.tensor(500.0), tau_mem_inv=torch.tensor(400.0))
BOX = norse.LIFBoxParameters(tau_mem_inv=torch.tensor(400.0), v_th=torch.tensor(0.4))
ONCE = {"spike_fn": SingleSpike, "spike_threshold": torch.tensor(0.8)}


def by_steps(made, x):
    """snnTorch: states are passed on, or hidden in the neuron, from zero."""
    made.reset_mem()
    state, spikes = (), []
    for z in x:
        output = made(z, *state)
        if isinstance(output, tuple):
            output, *state = output
            state = () if made.init_hidden else state
        spikes.append(output)
    return torch.stack(spikes)


def spikingjelly(made, x):
    functional.reset_net(made)
    return made(x) if made.step_mode == "m" else torch.stack([made(z) for z in x])


def norse_cell(made, x):
    state, spikes = None, []
    for z in x:
        s, state = made(z, state)
        spikes.append(s)
    return torch.stack(spikes)


def norse_sequence(made, x):
    return made(x)[0]


def sinabs_sequence(made, x):
    made.reset_states()
    return made(x.transpose(0, 1)).transpose(0, 1)


def sinabs_folded(made, x):
    made.reset_states()
    y = made(x.transpose(0, 1).flatten(0, 1))
    return y.unflatten(0, (-1, len(x))).transpose(0, 1)


def spikes_of_exp_leak():
    made = sl.ExpLeak(tau_mem=5.0)
    made.spike_fn, made.reset_fn = SingleSpike, MembraneReset()
    made.spike_threshold = nn.Parameter(torch.tensor(0.8), requires_grad=False)
    made.surrogate_grad_fn = sl.LIF(tau_mem=5.0).surrogate_grad_fn
    return made


NEURONS = {
    "Leaky": (lambda: snn.Leaky(beta=0.8, threshold=0.7), by_steps),
    "Leaky zero": (lambda: snn.Leaky(beta=0.8, reset_mechanism="zero"), by_steps),
    "Leaky hidden": (lambda: snn.Leaky(beta=0.8, init_hidden=True), by_steps),
    "Leaky output": (lambda: snn.Leaky(beta=0.8, init_hidden=True, output=True), by_steps),
    "Leaky at once": (lambda: snn.Leaky(beta=0.8, reset_delay=False), by_steps),
    "Synaptic": (lambda: snn.Synaptic(alpha=0.6, beta=0.8), by_steps),
    "Synaptic hidden": (lambda: snn.Synaptic(alpha=0.6, beta=0.8, init_hidden=True), by_steps),
    "Lapicque": (lambda: snn.Lapicque(beta=0.7, threshold=0.3), by_steps),
    "Lapicque hidden": (lambda: snn.Lapicque(R=2, C=2, init_hidden=True), by_steps),
    "Alpha": (lambda: snn.Alpha(alpha=0.9, beta=0.6, threshold=0.5), by_steps),
    "Alpha hidden": (lambda: snn.Alpha(alpha=0.9, beta=0.6, init_hidden=True), by_steps),
    "LIFCell": (lambda: norse.LIFCell(P), norse_cell),
    "LIFBoxCell": (lambda: norse.LIFBoxCell(BOX), norse_cell),
    "LIF": (lambda: norse.LIF(P), norse_sequence),
    "IAF": (lambda: sl.IAF(**ONCE), sinabs_sequence),
    "IAF one": (lambda: sl.IAF(spike_fn=MaxSpike(1)), sinabs_sequence),
    "sinabs LIF": (lambda: sl.LIF(tau_mem=5.0, tau_syn=3.0, **ONCE), sinabs_sequence),
    "IAFSqueeze": (lambda: sl.IAFSqueeze(num_timesteps=T, **ONCE), sinabs_folded),
    "IAFSqueeze batch": (lambda: sl.IAFSqueeze(batch_size=5, **ONCE), sinabs_folded),
    "LIFSqueeze": (lambda: sl.LIFSqueeze(tau_mem=5.0, num_timesteps=T, **ONCE), sinabs_folded),
    "ExpLeak": (spikes_of_exp_leak, sinabs_sequence),
}
for kind in (neuron.IFNode, neuron.LIFNode, neuron.ParametricLIFNode, neuron.QIFNode):
    for step_mode in "sm":
        NEURONS[f"{kind.__name__} {step_mode}"] = (
            lambda kind=kind, step_mode=step_mode: kind(step_mode=step_mode, v_threshold=0.6),
            spikingjelly,
        )


class Before(nn.Module):
    """A linear layer before the neuron and one after it, in whatever form it is called."""

    def __init__(self, made):
        super().__init__()
        self.first, self.neuron, self.last = nn.Linear(3, 4), made, nn.Linear(4, 2)
        with torch.no_grad():
            self.first.weight.mul_(4)

    def forward(self, x):
        return self.last(self._spikes(self.neuron(self.first(x))))

    @staticmethod
    def _spikes(output):
        return output[0] if isinstance(output, tuple) else output


class BeforeWithState(Before):
    def forward(self, x, state=None):
        spikes, state = self.neuron(self.first(x), state)
        return self.last(spikes), state


def build(name):
    make, run = NEURONS[name]
    return (BeforeWithState if run is norse_cell else Before)(make()), run


@pytest.mark.parametrize("static", [True, False], ids=["held", "in time"])
@pytest.mark.parametrize("name", NEURONS)
class TestNeuron:
    def test_snn_mode_is_the_librarys_own_run(self, name, static):
        model, run = build(name)
        x = 2 * torch.rand(5, 3) if static else 2 * torch.rand(T, 5, 3)
        net = ss.bootstrap(model, time_steps=T if static else None)
        sequence = ss.hold(x, T) if static else x
        spikes = run(model.neuron, model.first(sequence))
        assert 0 < spikes.mean() < 1
        expected = torch.stack([model.last(s) for s in spikes]).mean(0)
        for _ in range(2):  # no state is left from run to run
            torch.testing.assert_close(net(x), expected, rtol=0, atol=1e-6)
        seen = []
        model.neuron.register_forward_hook(lambda module, args, output: seen.append(output))
        net(x)
        outputs = [Before._spikes(output) for output in seen]
        got = torch.stack(outputs) if len(outputs) > 1 else outputs[0]
        if run is sinabs_sequence:
            got = got.transpose(0, 1)
        elif run is sinabs_folded:
            got = got.unflatten(0, (5, T)).transpose(0, 1)
        assert torch.equal(got, spikes)

    def test_ann_mode_is_the_curve_on_means(self, name, static):
        model, _ = build(name)
        x = 2 * torch.rand(5, 3) if static else 2 * torch.rand(T, 5, 3)
        net = ss.bootstrap(model, time_steps=T if static else None)
        net(x, ss.Mode.SAMPLE)
        logits = net(x, ss.Mode.FIT)
        mean = x if static else x.mean(0)
        rates = net.units[0].sampler(model.first(mean))
        torch.testing.assert_close(logits, model.last(rates))
        torch.testing.assert_close(net(x, ss.Mode.ANN), logits)
        logits.sum().backward()
        assert model.first.weight.grad.abs().sum() > 0

    def test_samples_are_mean_inputs_and_rates(self, name, static):
        model, run = build(name)
        x = 2 * torch.rand(5, 3) if static else 2 * torch.rand(T, 5, 3)
        net = ss.bootstrap(model, time_steps=T if static else None)
        net(x, ss.Mode.SAMPLE)
        z = model.first(ss.hold(x, T) if static else x)
        expected = ss.ann_sampler.AnnSampler()
        expected.append(run(model.neuron, z), z)
        got = net.units[0].sampler
        assert got.time_steps == T
        torch.testing.assert_close(got.statistics.pairs.sum(-1), expected.statistics.pairs.sum(-1))


@pytest.mark.filterwarnings("ignore:layer")
@pytest.mark.parametrize("name", NEURONS)
def test_a_silent_neurons_curve_is_its_own_run_at_stronger_inputs(name):
    model, run = build(name)
    made = model.neuron
    with torch.no_grad():
        model.first.weight.zero_()
        model.first.bias.fill_(-0.1)
    net = ss.bootstrap(model, time_steps=T)
    x = torch.rand(5, 3)
    net(x, ss.Mode.SAMPLE)
    buffers, called = dict(made.named_buffers()), []
    made.register_forward_hook(lambda *_: called.append(1))
    with torch.no_grad():
        net(x, ss.Mode.FIT)
    assert len(called) <= 2 * T + 2  # by passes on rates alone, not by asking
    assert all(buffers[key] is value for key, value in made.named_buffers())
    sampler = net.units[0].sampler
    if name == "IAFSqueeze batch":  # takes no other batch, so nothing is known
        assert sampler.values.max() < 5e-3
        return
    cells = sampler.values.shape[1] - 1
    end = (sampler.origin + cells * sampler.width).item()
    z = torch.linspace(-1, 1, 50).view(50, 1) * end
    with torch.no_grad():
        rates = run(made, ss.hold(z, T).contiguous()).mean(0)
    assert rates.max() >= 0.3
    assert (sampler(z) - rates).abs().mean() < 0.06


class Handing(nn.Module):
    """IF that hands its state back, with a norm inside."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4, eps=0.0)

    def forward(self, x, v=None):
        v = self.norm(x) + (0 if v is None else v)
        spikes = (v >= 1).float()
        return spikes, v - spikes


class Handed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.neuron, self.last = nn.Linear(3, 4), Handing(), nn.Linear(4, 2)

    def forward(self, x, state=None):
        spikes, state = self.neuron(self.first(x), state)
        return self.last(spikes), state


def test_asked_by_itself_a_neuron_gets_the_state_it_hands_back_and_moves_no_norm():
    ss.wrap.register(Handing, output=lambda neuron, rates, hidden: (rates, hidden))
    model = Handed()
    with torch.no_grad():
        model.first.weight.zero_()
        model.first.bias.fill_(0.1)
    net = ss.bootstrap(model, time_steps=4).eval()
    x = torch.rand(5, 3)
    with torch.no_grad():
        net(x, ss.Mode.SAMPLE)
        net.train()
        with pytest.warns(ss.SpikestrapWarning, match="never spiked"):
            net(x, ss.Mode.FIT)
    assert model.neuron.norm.num_batches_tracked == 0
    # Of IF with reset by subtraction from 0: floor(T z) / T.
    rates = net.units[0].sampler(torch.tensor([[0.1], [0.35], [0.6], [0.85], [1.5]]))
    assert rates.flatten().tolist() == pytest.approx([0, 0.25, 0.5, 0.75, 1])
