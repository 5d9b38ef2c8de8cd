import subprocess
import sys

import spikestrap as ss


def test_public_names_are_there():
    for name in ss.__all__:
        assert hasattr(ss, name), name


def test_reads_as_lava_does():
    assert ss.mode.SNN is ss.Mode.SNN
    assert ss.routine.Scheduler is ss.Scheduler
    assert {"cuba", "lif", "integrate_fire"} <= set(dir(ss.block))
    assert ss.ann_sampler.AnnSampler().pending is False


def test_errors_have_one_base():
    assert issubclass(ss.NotFittedError, ss.SpikestrapError)
    assert issubclass(ss.SpikestrapWarning, UserWarning)


def test_import_needs_the_core_alone():
    extras = ("matplotlib", "sklearn", "pooch", "typer", "rich", "lightning", "h5py", "nir")
    code = f"import sys, spikestrap; print([m for m in {extras} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
