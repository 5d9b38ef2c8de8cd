import ctypes
import sys

import pytest
from tests.processes import run

from spikestrap.kernel import native

CODE = "define i64 @kernel() {\n ret i64 7\n}\n"


def call(code=CODE):
    return ctypes.CFUNCTYPE(ctypes.c_int64)(native.load(code))()


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "spikestrap"


@pytest.fixture
def compiled(monkeypatch):
    """What was compiled."""
    codes, compile_ = [], native._compile

    def counted(code, machine):
        codes.append(code)
        return compile_(code, machine)

    monkeypatch.setattr(native, "_compile", counted)
    return codes


def test_keeps_what_is_compiled(home, compiled):
    assert call() == call() == 7
    assert compiled == [CODE]
    assert [path.suffix for path in home.iterdir()] == [".o"]
    assert call(CODE.replace("7", "8")) == 8
    assert len(list(home.iterdir())) == 2


@pytest.mark.parametrize("change", [lambda old: b"", lambda old: old[:-1], lambda old: old + b"."])
def test_a_file_that_was_changed_is_not_run(home, compiled, change):
    call()
    (path,) = home.iterdir()
    whole = path.read_bytes()
    path.write_bytes(change(whole))
    assert call() == 7
    assert len(compiled) == 2
    assert path.read_bytes() == whole


def test_another_processor_compiles_anew(home, monkeypatch):
    call()
    monkeypatch.setattr(native.llvm, "get_host_cpu_name", lambda: "x86-64")
    call()
    assert len(list(home.iterdir())) == 2


def test_without_a_place_to_write(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert call() == 7


def test_without_a_home(monkeypatch):
    def home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(native.Path, "home", home)
    assert call() == 7


def test_a_failed_write_leaves_nothing(home, monkeypatch):
    def replace(*paths):
        raise OSError("disk full")

    monkeypatch.setattr(native.Path, "replace", replace)
    assert call() == 7
    assert not list(home.iterdir())


def test_wrong_code_is_told():
    with pytest.raises(RuntimeError, match="undefined value"):
        native.load("define i64 @kernel() {\n ret i64 %x\n}\n")


def test_folder(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert native.folder().as_posix() == "/elsewhere/spikestrap"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert native.folder().parts[-2:] == (".cache", "spikestrap")


@pytest.mark.slow
def test_kernels_survive_the_process(home):
    code = (
        "import torch, spikestrap as ss\n"
        "from spikestrap.kernel import native\n"
        "compile_ = native._compile\n"
        "native._compile = lambda *args: [print('compiles'), compile_(*args)][1]\n"
        "print(ss.neuron.PLIF(1.0)(torch.ones(3, 2, 2)).sum().item())\n"
    )
    first, second = (run(sys.executable, "-c", code).stdout.split() for _ in range(2))
    assert first == ["compiles", "compiles", *second]  # forward and backward
