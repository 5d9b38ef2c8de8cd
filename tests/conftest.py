import hypothesis
import pytest
import torch

hypothesis.settings.register_profile("spikestrap", deadline=None, max_examples=25)
hypothesis.settings.load_profile("spikestrap")


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes seconds; -m 'not slow' leaves it out")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def fresh_compiler():
    """torch.compile without what it compiled in other tests: it counts towards a limit."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()
