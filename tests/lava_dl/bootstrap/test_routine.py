import pickle

import pytest

import spikestrap as ss
import spikestrap.lava_dl.bootstrap as bootstrap
from spikestrap.lava_dl.bootstrap.routine import LayerMode, Mode, Scheduler


def test_names():
    assert bootstrap.Mode is bootstrap.mode is bootstrap.routine.Mode is ss.Mode
    assert bootstrap.block.base.Mode is ss.Mode


def test_modes_are_those_of_the_schedule():
    theirs, ours = Scheduler(3, 2, [1]), ss.Scheduler(3, 2, [1])
    for epoch in range(4):
        for i in (0, 2, 3, 4):
            modes, expected = theirs.mode(epoch, i, True), ours.mode(epoch, i, True)
            assert (modes.base_mode, modes.crossover) == (expected.base_mode, expected.crossover)
            assert [m for m, _ in zip(modes, range(3), strict=False)] == [
                m for m, _ in zip(expected, range(3), strict=False)
            ]
        assert theirs.mode(epoch, 0, False).base_mode is Mode.SNN


def test_layer_mode_reads_as_lava_dls():
    assert str(LayerMode(0, Mode.SNN)) == "Mode: SNN"
    modes = pickle.loads(pickle.dumps(LayerMode(crossover=1, base_mode=Mode.ANN)))
    assert (modes.crossover, modes.base_mode) == (1, Mode.ANN)


def test_record_of_the_snn():
    scheduler, stat = Scheduler(), bootstrap.routine.LearningStat()
    for right in (5, 8, 6):
        stat.num_samples, stat.loss_sum, stat.correct_samples = 10, 10 - right, right
        scheduler.sync_snn_stat(stat)
        scheduler.update_snn_stat()
    assert scheduler.snn_stat.accuracy_log == [0.5, 0.8, 0.6]
    assert scheduler.snn_stat.max_accuracy == 0.8
    assert scheduler.snn_stat.min_loss == pytest.approx(0.2)
    assert not scheduler.snn_stat.best_accuracy
