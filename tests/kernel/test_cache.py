import subprocess
import sys

import pytest

from spikestrap.kernel import cache

SOURCE = "import numba\n@numba.njit(cache=CACHE)\ndef seven(): return 7\n"


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "spikestrap"


def test_keeps_what_is_compiled(home):
    module = cache.load(SOURCE)
    assert module.seven() == 7
    assert [path.suffix for path in home.iterdir() if path.is_file()] == [".py"]
    assert list(home.rglob("*.nbi"))  # numba's
    again = cache.load(SOURCE)
    assert again.seven() == 7
    assert sum(again.seven.stats.cache_hits.values()) == 1


def test_a_file_that_was_changed_is_not_run(home):
    cache.load(SOURCE)
    (path,) = home.glob("*.py")
    path.write_text("raise RuntimeError")
    assert cache.load(SOURCE).seven() == 7
    path.write_bytes(b"\xff\xfe")
    assert cache.load(SOURCE).seven() == 7


def test_without_a_place_to_write(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert cache.load(SOURCE).seven() == 7
    assert not cache.load(SOURCE).CACHE


def test_without_a_home(monkeypatch):
    def home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(cache.Path, "home", home)
    assert cache.load(SOURCE).seven() == 7


def test_a_failed_write_leaves_nothing(home, monkeypatch):
    def replace(*paths):
        raise OSError("disk full")

    monkeypatch.setattr(cache.Path, "replace", replace)
    assert not cache.load(SOURCE).CACHE
    assert not list(home.iterdir())


def test_folder(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert cache.folder().as_posix() == "/elsewhere/spikestrap"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.folder().parts[-2:] == (".cache", "spikestrap")


@pytest.mark.slow
def test_kernels_survive_the_process(home):
    code = (
        "import sys, torch, spikestrap as ss\n"
        "class Own(ss.neuron.IF):\n"
        "    def step(self, z, state): return super().step(z, state)\n"
        "spikes = Own(1.0)(torch.ones(3, 2, 2))\n"
        "(kernel,) = [m.forward for name, m in sys.modules.items() if name[:7] == 'kernel_']\n"
        "print(spikes.sum().item(), sum(kernel.stats.cache_hits.values()))\n"
    )
    outs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert [out.stdout.split()[-1] for out in outs] == ["0", "1"]
