import re
import warnings

import matplotlib
import pytest
import torch

import spikestrap as ss
from spikestrap.lava_dl.slayer.utils import LearningStat, LearningStats

matplotlib.use("Agg")


def epoch(stat, loss, right, samples=10):
    stat.num_samples, stat.loss_sum, stat.correct_samples = samples, loss * samples, right


def made():
    stats = LearningStats()
    for loss, right in ((1.0, 5), (0.5, 8), (0.75, 0)):
        epoch(stats.training, loss, right)
        if loss != 0.5:
            epoch(stats.testing, 2 * loss, right)
        stats.update()
    return stats


def test_best_and_logs():
    stats = made()
    assert stats.training.accuracy_log == [0.5, 0.8, 0.0]
    assert stats.training.loss_log == [1.0, 0.5, 0.75]
    assert stats.testing.loss_log == [2.0, None, 1.5]
    assert stats.validation.loss_log == [None] * 3
    assert (stats.training.min_loss, stats.training.max_accuracy) == (0.5, 0.8)
    assert (stats.training.best_loss, stats.training.best_accuracy) == (False, False)
    assert (stats.testing.best_loss, stats.testing.best_accuracy) == (True, False)
    assert (stats.validation.valid_loss_log, stats.training.valid_accuracy_log) == (False, True)


def test_text():
    stat = LearningStat("error", "(nats)", "score", "(%)")
    assert str(stat) == ""
    epoch(stat, 0.18656, 9608, 10000)
    assert str(stat).split() == ["error", "=", "0.18656", "(nats)", "score", "=", "0.96080", "(%)"]
    stat.update()
    assert re.search(r"\(min = +0.18656\) .*\(max = 0.96080\)", str(stat))
    stats = LearningStats()
    epoch(stats.training, 0.5, 8)
    epoch(stats.testing, 0.5, 8)
    assert str(stats).startswith("Train loss")
    assert " | Test  loss" in str(stats)
    assert "Valid" not in str(stats)


def test_without_a_classifier_there_is_no_accuracy(tmp_path):
    stats = LearningStats()
    for _ in range(2):
        stats.training.num_samples += 4
        stats.training.loss_sum += 2.0
        assert "accuracy" not in str(stats)
        assert str(stats.training).startswith("loss =     0.50000")
        stats.update()
    assert stats.training.accuracy_log == [None, None]
    assert (stats.training.max_accuracy, stats.training.best_accuracy) == (None, False)
    assert not stats.training.valid_accuracy_log
    stats.save(tmp_path)
    again = LearningStats()
    again.load(tmp_path)
    assert again.training.loss_log == [0.5, 0.5]
    assert again.training.accuracy_log == [None, None]
    stats.plot()
    assert not matplotlib.pyplot.figure(2).gca().get_lines()
    matplotlib.pyplot.close("all")


def test_print_goes_over_what_it_printed(capsys):
    stats = LearningStats()
    epoch(stats.training, 0.5, 8)
    loader = torch.utils.data.DataLoader(torch.zeros(100), batch_size=10)
    stats.print(3, iter=5, time_elapsed=0.5, header=["Mode: ANN"], dataloader=loader)
    first = capsys.readouterr().out
    assert "Mode: ANN" in first
    assert "Epoch    3:  50/100 (50%),     500.0000 ms elapsed" in first
    assert "A" not in first.partition("M")[0]
    stats.print(3, iter=6)
    assert capsys.readouterr().out.startswith("\033[3A")
    stats.new_line()
    stats.print(4)
    assert not capsys.readouterr().out.startswith("\033[3A")


@pytest.mark.parametrize("name", ["folder", "folder/"])
def test_files_come_back(tmp_path, name):
    stats, again = made(), LearningStats()
    (tmp_path / "folder").mkdir()
    stats.save(f"{tmp_path}/{name}")
    assert {p.name for p in (tmp_path / "folder").iterdir()} == {"loss.txt", "accuracy.txt"}
    again.load(f"{tmp_path}/{name}")
    for part in ("training", "validation", "testing"):
        assert vars(getattr(again, part)) == vars(getattr(stats, part)) | {
            "loss_sum": 0,
            "_correct": None,
            "num_samples": 0,
        }
    LearningStats().save(tmp_path)
    again.load(tmp_path)
    assert again.training.loss_log == []


@pytest.mark.parametrize("text", ["#Train\nx\n", "#Else\n1\n", "#Train Test\n1\n", "\xff\x00"])
def test_damaged_files(tmp_path, text):
    made().save(tmp_path)
    (tmp_path / "loss.txt").write_bytes(text.encode("latin1"))
    stats = made()
    before = stats.training.loss_log
    with pytest.raises(ss.SpikestrapError, match=r"loss.txt"):
        stats.load(tmp_path)
    assert stats.training.loss_log == before
    with pytest.raises(ss.SpikestrapError, match="cannot be read"):
        stats.load(tmp_path / "nowhere")


def test_figures(tmp_path):
    made().plot(path=tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made().plot(figsize=(3, 2), path=tmp_path)  # into the figures that are there
    assert matplotlib.pyplot.figure(1).get_size_inches().tolist() == [3, 2]
    assert {p.name for p in tmp_path.iterdir()} == {"loss.png", "accuracy.png"}
    axes = matplotlib.pyplot.figure(2).gca()
    assert [line.get_label() for line in axes.get_lines()] == ["Train", "Test"]
    matplotlib.pyplot.close("all")
