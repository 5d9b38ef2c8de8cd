import ast
import inspect
import pkgutil
import sys
from pathlib import Path

import pytest
from tests.processes import run

import spikestrap as ss


def test_public_names_are_there():
    for name in ss.__all__:
        assert hasattr(ss, name), name


def test_a_public_name_is_the_same_whatever_is_imported_first():
    """A module of the same name would take its place as soon as something imports that."""
    modules = {module.name for module in pkgutil.iter_modules(ss.__path__)}
    for name in modules & set(ss.__all__):
        assert inspect.ismodule(getattr(ss, name)), name


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="module 'spikestrap' has no attribute 'Netwrok'"):
        _ = ss.Netwrok


def test_type_checkers_see_what_python_finds():
    """The imports for type checkers and the table for Python name the same things."""
    tree = ast.parse(Path(ss.__file__).read_text())
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    found = {
        alias.name: node.module
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted(found) == sorted(ss.__all__)
    assert {name: home for name, home in found.items() if home is not None} == ss._HOMES


def test_reads_as_lava_does():
    assert ss.mode.SNN is ss.Mode.SNN
    assert ss.routine.Scheduler is ss.Scheduler
    assert {"cuba", "lif", "integrate_fire"} <= set(dir(ss.block))
    assert ss.ann_sampler.AnnSampler().pending is False


def test_errors_have_one_base():
    assert issubclass(ss.NotFittedError, ss.SpikestrapError)
    assert issubclass(ss.SpikestrapWarning, UserWarning)


def test_a_network_does_not_load_what_is_slow_and_may_never_be_used():
    code = """
import sys, torch
slow = {"torch._dynamo", "scipy.optimize", "sympy"} - {*sys.modules}
import spikestrap as ss
ss.Network, ss.bootstrap
print(slow & {*sys.modules})
net = ss.Network(ss.block.lif.Input(dict(threshold=1.0, voltage_decay=0.1)), time_steps=2)
with torch.no_grad():
    for mode in (ss.Mode.SNN, ss.Mode.SAMPLE, ss.Mode.FIT, ss.Mode.ANN):
        net(2 * torch.rand(8, 4), mode)
print((slow - {"scipy.optimize"}) & {*sys.modules})
"""
    done = run(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["set()", "set()"]


def test_import_needs_the_core_alone():
    extras = ("matplotlib", "sklearn", "pooch", "typer", "rich", "lightning", "h5py", "nir")
    code = f"import sys, spikestrap; print([m for m in {extras} if m in sys.modules])"
    done = run(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
