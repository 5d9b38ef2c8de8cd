import copy
import dataclasses
import pickle
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

import spikestrap as ss
from spikestrap import LayerMode, Mode, Scheduler, SpikestrapError

SNN, ANN, SAMPLE, FIT = Mode.SNN, Mode.ANN, Mode.SAMPLE, Mode.FIT
counts = st.integers(0, 60)
schedulers = st.builds(
    Scheduler,
    num_sample_iter=st.integers(1, 8),
    sample_period=st.integers(1, 12),
    crossover_epochs=st.none() | st.lists(counts, max_size=4),
    snn_from=st.none() | counts,
)


class TestMode:
    def test_names_are_those_of_lava(self):
        assert ss.mode is Mode
        assert {m.name for m in Mode} == {"SNN", "ANN", "SAMPLE", "FIT"}

    def test_spiking(self):
        assert {m for m in Mode if m.spiking} == {SNN, SAMPLE}

    @pytest.mark.parametrize("value", ["snn", 0, None, "SNN", LayerMode(SNN)])
    def test_of_refuses_and_lists_the_known(self, value):
        with pytest.raises(SpikestrapError, match=r"Mode\.SNN, .*Mode\.FIT; got "):
            Mode.of(value)

    def test_of_itself(self):
        assert [Mode.of(m) for m in Mode] == list(Mode)

    def test_pickles_to_itself(self):
        for m in Mode:
            assert pickle.loads(pickle.dumps(m)) is m
            assert copy.deepcopy(m) is m


class TestLayerMode:
    def test_is_spiking_below_the_crossover(self):
        assert list(islice(LayerMode(ANN, 2), 4)) == [SNN, SNN, ANN, ANN]
        assert list(islice(LayerMode(SAMPLE), 2)) == [SAMPLE, SAMPLE]

    def test_can_be_iterated_again_and_at_once(self):
        modes = LayerMode(FIT, 1)
        assert [m for m, _ in zip(modes, "abc", strict=False)] == [SNN, FIT, FIT]
        assert [m for m, _ in zip(modes, "abc", strict=False)] == [SNN, FIT, FIT]
        one, other = iter(modes), iter(modes)
        assert [next(one), next(one), next(other), next(one)] == [SNN, FIT, SNN, FIT]

    @pytest.mark.parametrize(
        "whole", [len, list, tuple, sorted, lambda modes: [*modes], lambda modes: [].extend(modes)]
    )
    def test_without_end_makes_no_list(self, whole):
        with pytest.raises(SpikestrapError, match=r"'ANN, SNN below unit 1' go on .*zip\(blocks,"):
            whole(LayerMode(ANN, 1))

    def test_is_true(self):
        assert all(LayerMode(mode) for mode in Mode)

    def test_is_frozen_and_a_value(self):
        modes = LayerMode(ANN, 1)
        with pytest.raises(dataclasses.FrozenInstanceError):
            modes.crossover = 2
        assert modes == LayerMode(ANN, 1)
        assert hash(modes) == hash(LayerMode(ANN, 1))
        assert modes != LayerMode(ANN, 2)

    def test_says_what_it_is(self):
        assert str(LayerMode(ANN)) == "ANN"
        assert str(LayerMode(SAMPLE, 3)) == "SAMPLE, SNN below unit 3"
        assert str(LayerMode(SNN, 3)) == "SNN"

    @pytest.mark.parametrize("crossover", [-1, 1.0, None, "1"])
    def test_refuses_a_crossover(self, crossover):
        with pytest.raises(SpikestrapError, match="whole number >= 0, got"):
            LayerMode(ANN, crossover)

    def test_one_mode_is_iterated_like_the_modes_of_all(self):
        for mode in Mode:
            assert [m for _, m in zip("abc", mode, strict=False)] == 3 * [mode]
            assert mode
            with pytest.raises(SpikestrapError, match="go on without end"):
                list(mode)

    def test_is_no_mode_of_one_unit(self):
        with pytest.raises(SpikestrapError, match=r"iterate over it, as in zip\(blocks, modes\)"):
            Mode.of(LayerMode(ANN))

    def test_refuses_a_mode(self):
        with pytest.raises(SpikestrapError, match=r"mode must be one of .* got 'ann'"):
            LayerMode("ann")


class TestScheduler:
    def test_by_hand(self):
        scheduler = Scheduler(num_sample_iter=2, sample_period=3)
        expected = [SAMPLE, SAMPLE, FIT, ANN, ANN]
        for epoch in range(7):
            modes = [scheduler.mode(epoch, i) for i in range(5)]
            wanted = expected if epoch in (0, 3, 6) else [ANN] * 5
            assert modes == [LayerMode(m) for m in wanted]

    def test_samples_every_epoch_where_the_period_is_one(self):
        scheduler = Scheduler(num_sample_iter=1, sample_period=1)
        for epoch in range(3):
            assert [scheduler.mode(epoch, i).base_mode for i in range(3)] == [SAMPLE, FIT, ANN]

    def test_crosses_over_one_unit_an_epoch_that_is_named(self):
        scheduler = Scheduler(1, 100, crossover_epochs=[5, 2, 5])
        crossovers = [scheduler.mode(epoch, 9).crossover for epoch in range(8)]
        assert crossovers == [0, 0, 1, 1, 1, 3, 3, 3]

    def test_sampling_leaves_the_crossover(self):
        scheduler = Scheduler(1, 2, crossover_epochs=[1])
        assert scheduler.mode(2, 0) == LayerMode(SAMPLE, 1)
        assert scheduler.mode(2, 1) == LayerMode(FIT, 1)

    def test_ends_as_snn(self):
        scheduler = Scheduler(2, 3, crossover_epochs=[1], snn_from=3)
        assert scheduler.mode(2, 5) == LayerMode(ANN, 1)
        for epoch in (3, 4, 6, 100):
            assert all(scheduler.mode(epoch, i) == LayerMode(SNN) for i in range(5))

    @given(schedulers, counts, counts)
    def test_validation_is_snn(self, scheduler, epoch, iteration):
        assert scheduler.mode(epoch, iteration, train=False) == LayerMode(SNN)

    @given(schedulers, st.lists(st.tuples(counts, counts, st.booleans()), max_size=20))
    def test_is_a_function_of_the_time_alone(self, scheduler, calls):
        twin = copy.deepcopy(scheduler)
        forth = [scheduler.mode(*call) for call in calls]
        back = [twin.mode(*call) for call in reversed(calls)]
        assert forth == back[::-1]
        assert scheduler == twin

    @given(schedulers, counts, counts)
    def test_the_crossover_never_goes_back(self, scheduler, epoch, later):
        one, other = scheduler.mode(epoch, 1), scheduler.mode(epoch + later, 1)
        assert other.crossover >= one.crossover or other.base_mode is SNN

    @given(schedulers, st.integers(0, 60))
    def test_an_epoch_fits_once_after_its_samples(self, scheduler, epoch):
        modes = [scheduler.mode(epoch, i).base_mode for i in range(20)]
        if SAMPLE in modes:
            n = scheduler.num_sample_iter
            assert modes == [SAMPLE] * n + [FIT] + [ANN] * (19 - n)
        else:
            assert set(modes) in ({ANN}, {SNN})

    def test_is_frozen(self):
        with pytest.raises(dataclasses.FrozenInstanceError):
            Scheduler().sample_period = 3

    def test_keeps_no_hold_on_the_callers_list(self):
        epochs = [1]
        scheduler = Scheduler(crossover_epochs=epochs)
        epochs.append(0)
        assert scheduler.mode(1, 50).crossover == 1

    @pytest.mark.parametrize("kind", [tuple, list, set, frozenset, iter, range])
    def test_takes_any_collection_of_epochs(self, kind):
        epochs = range(2, 4) if kind is range else kind([2, 3])
        scheduler = Scheduler(crossover_epochs=epochs)
        for _ in range(2):
            assert [scheduler.mode(e, 50).crossover for e in range(5)] == [0, 0, 1, 2, 2]

    def test_pickles(self):
        scheduler = Scheduler(2, 3, crossover_epochs=[1], snn_from=3)
        assert pickle.loads(pickle.dumps(scheduler)) == scheduler

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"num_sample_iter": 0}, "num_sample_iter must be a whole number >= 1, got 0"),
            ({"sample_period": 0}, "sample_period must be a whole number >= 1, got 0"),
            ({"sample_period": 2.5}, "sample_period must be a whole number >= 1, got 2.5"),
            ({"snn_from": -1}, "snn_from must be None or a whole number >= 0, got -1"),
            ({"crossover_epochs": [1, -2]}, "crossover_epochs must be .* >= 0, got -2"),
            ({"crossover_epochs": [1.5]}, "crossover_epochs must be .* >= 0, got 1.5"),
            ({"crossover_epochs": 5}, "crossover_epochs must be .* got 5"),
        ],
    )
    def test_refuses(self, settings, message):
        with pytest.raises(SpikestrapError, match=message):
            Scheduler(**settings)

    @pytest.mark.parametrize("time", [(-1, 0), (0, -1), (0.5, 0), (0, None)])
    def test_refuses_a_time(self, time):
        with pytest.raises(SpikestrapError, match=r"(epoch|iteration) must be a whole number >= 0"):
            Scheduler().mode(*time)
