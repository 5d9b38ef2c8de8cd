from dataclasses import replace

import pytest
import torch
from torch import nn

import spikestrap as ss
from spikestrap.train.data import Arrays, Splits
from spikestrap.train.loop import fit
from spikestrap.train.module import one_cycle
from spikestrap.train.options import Options
from spikestrap.unit import units_of

OPTIONS = Options(
    epochs=3, batch_size=8, learning_rate=0.05, num_sample_iter=2, sample_period=2, validate_every=1
)


class Toy(nn.Module):
    """A linear classifier that notes the modes it is called with."""

    def __init__(self, fitted_from=0):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 2)
        self.train_modes, self.eval_modes, self.fitted_from = [], [], fitted_from

    def forward(self, x, mode):
        if not self.training:
            self.eval_modes.append(mode)
            if mode is ss.Mode.ANN and len(self.train_modes) < self.fitted_from:
                raise ss.NotFittedError("no curve")
        else:
            self.train_modes.append(str(mode))
        return self.linear(x.flatten(1))


def part(n, seed):
    x = torch.rand(n, 1, 2, 2, generator=torch.Generator().manual_seed(seed))
    return Arrays(x, (x.sum((1, 2, 3)) > 2).long())


def splits(**parts):
    return Splits(
        "toy", 2, **{"train": part(40, 0), "validation": part(20, 1), "test": None, **parts}
    )


def test_learns_and_never_looks_at_the_test_part():
    net = Toy()
    history = fit(net, splits(), replace(OPTIONS, epochs=20, learning_rate=0.2))
    losses = [epoch.loss for epoch in history.epochs]
    assert losses[-1] < 0.7 * losses[0]
    assert history.epochs[history.best_epoch].snn_accuracy > 80


def test_the_modes_are_the_schedulers():
    net = Toy()
    history = fit(net, splits(), OPTIONS)
    sampled = ["SAMPLE", "SAMPLE", "FIT", "ANN", "ANN"]
    assert net.train_modes == [*sampled, *5 * ["ANN"], *sampled]
    assert [epoch.steps for epoch in history.epochs] == [
        {"sample": 2, "fit": 1, "ann": 2},
        {"ann": 5},
        {"sample": 2, "fit": 1, "ann": 2},
    ]


def test_snn_epochs_by_rate_take_their_gradient_from_the_curves():
    def trained(**changes):
        torch.manual_seed(0)
        neuron = {"threshold": 1.0, "current_decay": 1.0, "voltage_decay": 0.0, "v_init": 0.5}
        net = ss.Network(
            ss.block.Flatten(),
            ss.block.cuba.Dense(neuron, 4, 8, weight_scale=2.0),
            ss.block.cuba.Affine(None, 8, 2),
            time_steps=3,
        )
        called = []
        for _, unit in units_of(net):
            unit.register_forward_hook(
                lambda unit, args, _: called.append(args[1]) if unit.training else None
            )
        history = fit(net, splits(), replace(OPTIONS, **changes))
        return history, called

    history, called = trained(snn_epochs=1, snn_gradient="rate")
    assert history.epochs[-1].steps == {"snn": 5}
    assert called[-10:] == 5 * [ss.Mode.SNN, ss.Mode.ANN]
    history, called = trained(snn_epochs=1)
    assert called[-5:] == 5 * [ss.Mode.SNN]
    # Where no epoch fits curves there are none to take it from.
    history, called = trained(snn_epochs=3, snn_gradient="rate")
    assert called == 15 * [ss.Mode.SNN]


def test_snn_epochs_come_last_and_are_counted_from_the_end():
    net = Toy()
    fit(net, splits(), replace(OPTIONS, snn_epochs=1))
    assert net.train_modes[10:] == 5 * ["SNN"]
    fit(net := Toy(), splits(), replace(OPTIONS, snn_epochs=9))
    assert set(net.train_modes) == {"SNN"}


def test_crossover_reaches_the_network():
    net = Toy()
    fit(net, splits(), replace(OPTIONS, crossover_epochs=(1,)))
    assert net.train_modes[5] == "ANN, SNN below unit 1"


def test_what_has_crossed_over_altogether_is_recorded_as_an_snn():
    torch.manual_seed(0)
    neuron = {"threshold": 0.1, "voltage_decay": 0.0, "v_init": 0.2}  # so that it spikes
    dense = ss.block.cuba.Dense
    blocks = (ss.block.Flatten(), dense(neuron, 4, 6), dense(neuron, 6, 2))
    net = ss.Network(*blocks, time_steps=3)
    history = fit(net, splits(), replace(OPTIONS, sample_period=1, crossover_epochs=(1, 2)))
    sampled = {"sample": 2, "fit": 1, "ann": 2}
    assert [epoch.steps for epoch in history.epochs] == [sampled, sampled, {"snn": 5}]


def test_seconds_by_mode():
    seconds = fit(Toy(), splits(), OPTIONS).seconds
    assert set(seconds) == {"sample", "fit", "ann", "evaluation", "total"}
    assert sum(seconds.values()) <= 2 * seconds["total"]
    assert all(value > 0 for value in seconds.values())


def test_validates_in_its_period_and_at_the_end():
    history = fit(Toy(), splits(), replace(OPTIONS, epochs=5, validate_every=2))
    assert [epoch.snn_accuracy is not None for epoch in history.epochs] == [
        False, True, False, True, True,
    ]  # fmt: skip


def test_no_ann_accuracy_before_the_first_fit():
    history = fit(Toy(fitted_from=10), splits(), OPTIONS)
    assert [epoch.ann_accuracy is not None for epoch in history.epochs] == [False, True, True]


def test_the_same_seed_gives_the_same_result():
    results = []
    for seed in (1, 1, 2):
        net = Toy()
        history = fit(net, splits(), OPTIONS, seed)
        results.append(([epoch.loss for epoch in history.epochs], net.linear.weight.tolist()))
    assert results[0] == results[1] != results[2]


def test_ends_with_what_validated_best():
    """The classes swap sides after the first epoch: the first epoch's weights stay best."""

    class Swapping(Toy):
        def forward(self, x, mode):
            logits = super().forward(x, mode)
            return logits.flip(1) if self.training and len(self.train_modes) > 50 else logits

    net = Swapping()
    history = fit(net, splits(), replace(OPTIONS, epochs=30, learning_rate=0.1))
    accuracy = [epoch.snn_accuracy for epoch in history.epochs]
    assert accuracy[-1] < 50 < max(accuracy)
    validation = splits().validation
    best = max(accuracy)
    least = best - (best * (100 - best) / len(validation)) ** 0.5
    assert history.best_epoch == max(i for i, value in enumerate(accuracy) if value >= least)
    right = (net.eval()(validation.x, ss.Mode.SNN).argmax(1) == validation.y).sum()
    assert 100 * right / len(validation) == pytest.approx(accuracy[history.best_epoch])


@pytest.mark.parametrize(
    ("wrong", "kept"),
    [
        ([10, 2, 3, 4], 2),  # 90, 85 and 80 %; one standard error at 90 % is 6.7 points
        ([10, 4, 5, 6, 2, 9], 4),
        ([10, 6, 2, 3, 4, 1, 2], 5),  # 4.9 points at 95 %
        ([10, 0, 1, 0, 1], 3),  # all right: no error, no tolerance
    ],
)
def test_keeps_the_last_epoch_within_a_standard_error_of_the_best(wrong, kept):
    class Scripted(Toy):
        def forward(self, x, mode):
            logits = super().forward(x, mode)
            if self.training:
                return logits
            right = nn.functional.one_hot((x.flatten(1).sum(1) > 2).long(), 2).float()
            right[: wrong[self.eval_modes.count(ss.Mode.SNN) - 1]] *= -1
            return right

    history = fit(Scripted(), splits(), replace(OPTIONS, epochs=len(wrong)))
    assert [epoch.snn_accuracy for epoch in history.epochs] == [100 - 5 * w for w in wrong]
    assert history.best_epoch == kept


def test_patience_ends_it_early():
    class Constant(Toy):
        def forward(self, x, mode):
            return 0 * super().forward(x, mode)

    history = fit(Constant(), splits(), replace(OPTIONS, epochs=50, patience=2))
    assert len(history.epochs) == 3


def test_that_nothing_trains_reaches_the_user():
    """As many images as are sampled: an epoch has no step."""
    few = splits(train=part(16, 0))
    with pytest.warns(ss.SpikestrapWarning, match="nothing trains as an ANN: .*it has 2;"):
        history = fit(Toy(), few, replace(OPTIONS, sample_period=1))
    assert [epoch.steps for epoch in history.epochs] == 3 * [{"sample": 2}]


def test_tells_its_progress():
    told = []
    fit(Toy(), splits(), OPTIONS, on_progress=told.append)
    assert len(told) == 3 * (5 + 1)
    assert [(p.epoch, p.step, p.mode) for p in told[:3]] == [
        (0, 0, "SAMPLE"),
        (0, 1, "SAMPLE"),
        (0, 2, "FIT"),
    ]
    finished = [p.finished for p in told if p.finished is not None]
    assert [epoch.epoch for epoch in finished] == [0, 1, 2]
    assert told[-1].finished is finished[-1]


@pytest.mark.parametrize("name", ["train", "validation"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x[:0], y[:0]), "expected images and as many labels, at least one, got"),
        (lambda x, y: (x, y[:-1]), r"got images \(20, 1, 2, 2\) and labels \(19,\)"),
        (lambda x, y: (x, y[:, None]), r"got images .* and labels \(20, 1\)"),
        (lambda x, y: (x, y.int()), "labels: expected a tensor of torch.int64, got torch.int32"),
        (lambda x, y: (x.double(), y), "images: expected a tensor of .*, got torch.float64"),
        (lambda x, y: (x.numpy(), y), "images: expected a tensor of .*, got ndarray"),
        (lambda x, y: (x, y + 1), "labels: expected 0 to 1, got 1 to 2"),
        (lambda x, y: (x, y - 1), "labels: expected 0 to 1, got -1 to 0"),
    ],
)
def test_data_that_cannot_be_trained_on_are_refused_before_it_begins(name, change, message):
    good = part(20, 1)
    net = Toy()
    with pytest.raises(ss.SpikestrapError, match=f"{name}.*{message}"):
        fit(net, splits(**{name: Arrays(*change(good.x, good.y))}), OPTIONS)
    assert net.train_modes == []


def test_a_network_with_nothing_to_train_is_refused_before_it_begins():
    net = Toy().requires_grad_(False)
    with pytest.raises(ss.SpikestrapError, match="net: expected parameters to train, got none"):
        fit(net, splits(), OPTIONS)
    assert net.train_modes == []


def test_neurons_parameters_alone_learn_as_an_snn_and_are_refused_as_an_ann():
    neuron = {"threshold": 1.0, "learnable": ("threshold",)}
    dense = ss.block.cuba.Dense(neuron, 4, 2)
    net = ss.Network(ss.block.Flatten(), dense, time_steps=4)
    dense.synapse.requires_grad_(False)
    threshold = dense.unit.neuron.threshold
    before = threshold.detach().clone()
    with pytest.raises(ss.SpikestrapError, match=r"got one in mode FIT that has none; .*an SNN"):
        fit(net, splits(), OPTIONS)
    assert torch.equal(threshold, before)
    fit(net, splits(), replace(OPTIONS, snn_epochs=OPTIONS.epochs))
    assert not torch.equal(threshold, before)


def test_a_loss_that_is_not_finite_ends_it():
    bad = part(40, 0)
    bad.x[:] = float("nan")
    with pytest.raises(ss.SpikestrapError, match="expected a finite loss, got nan in mode SAMPLE"):
        fit(Toy(), splits(train=bad), OPTIONS)


def test_the_learning_rate_of_an_epoch_is_that_of_its_last_step():
    history = fit(Toy(), splits(), OPTIONS)  # 5 steps an epoch
    rates = [0.05 * one_cycle(step, 15) for step in (4, 9, 14)]
    assert [epoch.learning_rate for epoch in history.epochs] == pytest.approx(rates)
    assert rates[-1] > 0


@pytest.mark.parametrize("total", [1, 2, 7, 1000])
def test_the_learning_rate_rises_and_falls(total):
    rates = [one_cycle(step, total) for step in range(total + 1)]
    peak = rates.index(max(rates))
    assert all(0 < rate <= 1 for rate in rates[:-1])
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] == pytest.approx(0, abs=1e-9)
