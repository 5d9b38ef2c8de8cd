import pytest

from spikestrap.errors import SpikestrapError
from spikestrap.routine import Mode
from spikestrap.train import RECIPES
from spikestrap.train.options import Options, whole_number


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number >= 1, got 0"),
        ({"epochs": -3}, "epochs must be a whole number >= 1, got -3"),
        ({"batch_size": 1.5}, "batch_size must be a whole number >= 1, got 1.5"),
        ({"validate_every": True}, "validate_every must be a whole number >= 1, got True"),
        ({"snn_epochs": -1}, "snn_epochs must be a whole number >= 0, got -1"),
        ({"snn_gradient": "rates"}, "snn_gradient: expected one of surrogate, rate, got 'rates'"),
        ({"patience": 0}, "patience must be None or a whole number >= 1, got 0"),
        ({"learning_rate": -1.0}, "learning_rate must be a finite number >= 0, got -1.0"),
        ({"learning_rate": "fast"}, "learning_rate must be a finite number >= 0, got 'fast'"),
        ({"label_smoothing": 1.5}, "label_smoothing must be a finite number from 0 to 1, got 1.5"),
        ({"weight_decay": float("nan")}, "weight_decay must be a finite number >= 0, got nan"),
    ],
)
def test_says_what_was_expected(given, message):
    with pytest.raises(SpikestrapError, match=message):
        Options(**given)


def test_a_quick_try_is_a_small_copy_of_the_recipe():
    """In every recipe some epochs train by curves, however few there are."""
    for entry in RECIPES.values():
        own = entry.options
        assert own.for_epochs(None) == own.for_epochs(own.epochs) == own
        assert own.for_epochs(2 * own.epochs).snn_epochs == own.snn_epochs
        for epochs in range(1, own.epochs):
            options = own.for_epochs(epochs)
            assert abs(options.snn_epochs / epochs - own.snn_epochs / own.epochs) <= 0.501 / epochs
            assert options.scheduler().mode(0, 0).base_mode is Mode.SAMPLE
    with pytest.raises(SpikestrapError, match="epochs must be a whole number >= 1, got 0"):
        Options().for_epochs(0)


def test_a_whole_number_within_both_ends():
    assert whole_number("n", 3, 1, 3) == 3
    with pytest.raises(SpikestrapError, match="n must be a whole number from 1 to 3, got 4"):
        whole_number("n", 4, 1, 3)
