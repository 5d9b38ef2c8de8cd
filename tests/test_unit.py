import copy
import io

import pytest
import torch
from torch import nn

from spikestrap import Mode, NotFittedError, SpikestrapError, SpikestrapWarning, ragged
from spikestrap.ann_sampler import AnnSampler
from spikestrap.neuron import IF, LIF, RF
from spikestrap.unit import Unit, units_of


def make(**settings):
    return Unit(LIF(1.0, 0.1), AnnSampler(**settings))


def draw(seed=0, shape=(4, 60, 3)):
    return 3 * torch.rand(shape, generator=torch.Generator().manual_seed(seed)) - 1


def test_snn_is_the_neuron():
    unit, z = make(), draw()
    assert torch.equal(unit(z, Mode.SNN), unit.neuron(z))
    assert torch.equal(unit(z), unit.neuron(z))
    held = z[:1]
    assert torch.equal(unit(held, Mode.SNN, time_steps=5), unit.neuron(held, time_steps=5))
    assert not unit.sampler.pending


@pytest.mark.parametrize("held", [False, True])
def test_sample_records_what_the_neuron_got_and_gave(held):
    unit = make()
    z, time_steps = (draw()[:1], 4) if held else (draw(), None)
    spikes = unit(z, Mode.SAMPLE, time_steps)
    assert torch.equal(spikes, unit.neuron(z, time_steps=time_steps))
    expected = AnnSampler()
    expected.append(spikes, z)
    assert torch.equal(unit.sampler.statistics.pairs, expected.statistics.pairs)
    assert unit.sampler.time_steps == 4


def test_a_silent_units_warning_has_its_class_and_size_and_the_callers_line():
    unit = make()
    unit(draw(shape=(4, 60, 3, 5)) - 9, Mode.SAMPLE)
    with pytest.warns(SpikestrapWarning, match="a layer of 3 x 5 LIF neurons never") as warned:
        unit(draw(shape=(60, 3, 5)), Mode.ANN)
    assert warned[0].filename == __file__
    assert "raise the weights, set v_init, or take" in str(warned[0].message)


def test_fit_is_of_the_samples_and_then_the_curve():
    unit, alone = make(), AnnSampler()
    for seed in range(3):
        alone.append(unit(draw(seed), Mode.SAMPLE), draw(seed))
    alone.fit()
    mean = draw(9).mean(0)
    assert torch.equal(unit(mean, Mode.FIT), alone(mean))
    assert torch.equal(unit(mean, Mode.ANN), alone(mean))
    assert unit.sampler.fitted == 1


def test_ann_mode_fits_what_is_pending():
    """A loader too short to reach its fit does not miss it."""
    unit, mean = make(), draw(9).mean(0)
    unit(draw(), Mode.SAMPLE)
    rates = unit(mean, Mode.ANN)
    assert unit.sampler.fitted == 1
    assert not unit.sampler.pending
    assert torch.equal(unit(mean, Mode.ANN), rates)
    assert unit.sampler.fitted == 1
    # And again after it sampled again.
    unit(2 * draw(1), Mode.SAMPLE)
    unit(mean, Mode.ANN)
    assert unit.sampler.fitted == 2


def test_pending_samples_survive_a_checkpoint():
    unit, mean = make(), draw(9).mean(0)
    unit(draw(), Mode.SAMPLE)
    file = io.BytesIO()
    torch.save(unit.state_dict(), file)
    file.seek(0)
    resumed = make()
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(resumed(mean, Mode.ANN), unit(mean, Mode.ANN))


@pytest.mark.parametrize("mode", [Mode.ANN, Mode.FIT])
def test_before_any_sample_says_what_to_run(mode):
    with pytest.raises(NotFittedError, match=r"Mode\.SAMPLE"):
        make()(draw().mean(0), mode)
    assert issubclass(NotFittedError, SpikestrapError)


@pytest.mark.parametrize("mode", ["ann", None, 3])
def test_refuses_an_unknown_mode(mode):
    with pytest.raises(SpikestrapError, match=r"one of Mode\.SNN.*got"):
        make()(draw(), mode)


def test_gradients_in_every_mode():
    unit = Unit(LIF(1.0, 0.1, learnable=("threshold",)), AnnSampler())
    for mode in (Mode.SNN, Mode.SAMPLE, Mode.FIT, Mode.ANN):
        z = (draw() if mode.spiking else draw().mean(0)).requires_grad_()
        unit(z, mode).sum().backward()
        assert (z.grad != 0).any()


def test_the_curve_gives_the_rates_of_the_neuron():
    unit = make()
    z = draw(shape=(1, 400, 3))
    rate = unit(z, Mode.SAMPLE, time_steps=8).mean(0)
    assert (unit(z[0], Mode.FIT) - rate).abs().mean() < 0.01


def test_copies_are_apart():
    unit = make()
    unit(draw(), Mode.SAMPLE)
    twin = copy.deepcopy(unit)
    twin(draw().mean(0), Mode.FIT)
    assert unit.sampler.fitted == 0
    assert unit.sampler.pending


def test_units_of_lists_them_in_order():
    net = nn.Sequential(nn.Linear(3, 3), make(), nn.Sequential(make(), nn.ReLU()))
    assert [name for name, _ in units_of(net)] == ["1", "2.0"]
    assert [name for name, _ in units_of(make())] == [""]
    assert list(units_of(nn.ReLU())) == []


class Unfit(LIF):
    not_bootstrappable = "it is not in the mood"


@pytest.mark.parametrize("mode", [Mode.SAMPLE, Mode.FIT, Mode.ANN])
def test_says_why_a_neuron_cannot_be_bootstrapped(mode):
    unit = Unit(Unfit(1.0, 0.1), AnnSampler())
    assert unit(draw(), Mode.SNN).shape == (4, 60, 3)
    message = r"Unfit cannot be bootstrapped: it is not in the mood; got Mode.*expected Mode\.SNN"
    with pytest.raises(SpikestrapError, match=message):
        unit(draw() if mode.spiking else draw()[0], mode)
    assert not unit.sampler.pending


def test_a_resonator_is_bootstrapped_with_a_real_input_alone():
    unit, z = Unit(RF(0.5, 4.0, 0.1), AnnSampler()), 3 * draw(shape=(16, 60, 3))
    assert unit(z, Mode.SAMPLE).sum() > 0
    assert unit(z.mean(0), Mode.FIT).shape == (60, 3)
    with pytest.raises(SpikestrapError, match=r"RF cannot be bootstrapped.*two numbers"):
        unit(torch.complex(z, z), Mode.SAMPLE)


def test_a_silent_unit_asks_its_neuron_channel_by_channel():
    thresholds = torch.tensor([0.5, 0.8, 1.0])
    unit = Unit(IF(thresholds), AnnSampler(per="channel", channels=3))
    z = 0.1 * torch.rand(4, 60, 3, generator=torch.Generator().manual_seed(0))
    unit(z, Mode.SAMPLE)
    unit.neuron.register_forward_hook(lambda *_: pytest.fail("asking is no pass"))
    with pytest.warns(SpikestrapWarning, match="never spiked"):
        unit(z.mean(0), Mode.FIT)
    probe = torch.linspace(0, 1.5, 40)[:, None] * thresholds
    rates = IF(thresholds)(probe[None], time_steps=4).mean(0)
    assert (unit(probe, Mode.ANN) - rates).abs().mean() < 0.05
    assert unit.neuron.training


@pytest.mark.filterwarnings("ignore:a layer")
def test_a_silent_unit_loaded_before_its_fit_gets_the_same_curve():
    unit, other = make(), make()
    unit(draw() - 3, Mode.SAMPLE)
    other.load_state_dict(copy.deepcopy(unit.state_dict()))
    mean = draw(9).mean(0)
    assert torch.equal(unit(mean, Mode.FIT), other(mean, Mode.ANN))
    assert unit(mean, Mode.ANN).max() > 0.5


@pytest.mark.filterwarnings("ignore:a layer")
def test_a_silent_unit_fits_sequences_of_different_lengths():
    unit, lengths = make(), torch.tensor([2, 4, 3] * 20)
    with ragged(lengths):
        unit(draw() - 3, Mode.SAMPLE)
        rates = unit(draw().mean(0) + 1, Mode.FIT)
    assert rates.max() == 1
    assert unit.sampler.time_steps == 4
