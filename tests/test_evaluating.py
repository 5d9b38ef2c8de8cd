from torch import nn

from spikestrap.evaluating import evaluating


class Merges(nn.Linear):
    """As adapters do that are added to the weights for evaluation."""

    merged = False

    def train(self, mode=True):
        self.merged = not mode
        return super().train(mode)


def test_what_a_module_does_in_eval_mode_it_takes_back():
    model = nn.Sequential(Merges(2, 2), nn.BatchNorm1d(2).eval())
    with evaluating(model):
        assert model[0].merged
    assert not model[0].merged
    assert (model.training, model[0].training, model[1].training) == (True, True, False)
