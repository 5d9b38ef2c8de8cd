import pytest
import torch

from spikestrap import SpikestrapError
from spikestrap.kernel import compiled, use_backend
from spikestrap.neuron import LIF, Neuron


class Neighbour(Neuron):
    """Fires with its neighbour's input, which no kernel does."""

    def init_state(self, z):
        return ()

    def step(self, z, state):
        return (z.roll(1) > 0).to(z.dtype), state


@pytest.fixture
def fused_calls(monkeypatch):
    """How often the fused kernel ran."""
    calls = []
    neuron = LIF(1.0, 0.1)
    neuron(torch.rand(4, 2, 3))  # the first call compares kernel and reference
    run = compiled.run
    monkeypatch.setattr(compiled, "run", lambda *args: calls.append(1) or run(*args))
    return calls


@pytest.mark.parametrize(("backend", "used"), [("auto", 1), ("fused", 1), ("reference", 0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_chooses(fused_calls, backend, used, dtype):
    with use_backend(backend):
        LIF(1.0, 0.1)(torch.rand(4, 2, 3, dtype=dtype))
    assert len(fused_calls) == used


def test_auto_takes_the_reference_where_no_kernel_is(fused_calls):
    LIF(1.0, 0.1)(torch.rand(4, 2, 3, dtype=torch.float64))
    Neighbour()(torch.rand(4, 2, 3))
    assert not fused_calls


@pytest.mark.parametrize(
    ("neuron", "dtype", "message"),
    [
        (LIF(1.0, 0.1), torch.float64, "LIF: no fused kernel for torch.float64 on cpu"),
        (Neighbour(), torch.float32, "Neighbour: no fused kernel: its step has roll"),
    ],
)
def test_fused_raises_where_no_kernel_is(neuron, dtype, message):
    z = torch.rand(4, 2, 3, dtype=dtype)
    with use_backend("fused"), pytest.raises(SpikestrapError, match=message):
        neuron(z)


def test_is_undone_on_leaving(fused_calls):
    z = torch.rand(4, 2, 3)
    with use_backend("reference"):
        with use_backend("auto"):
            LIF(1.0, 0.1)(z)
        assert len(fused_calls) == 1
        LIF(1.0, 0.1)(z)
        assert len(fused_calls) == 1
    with pytest.raises(KeyError), use_backend("reference"):
        raise KeyError
    LIF(1.0, 0.1)(z)
    assert len(fused_calls) == 2


@pytest.mark.parametrize("name", ["triton", "", None])
def test_unknown_name_lists_the_known(name):
    with (
        pytest.raises(SpikestrapError, match="one of auto, reference, fused; got"),
        use_backend(name),
    ):
        pass
