import sys

import numba
import pytest
from numba.core import caching
from tests.processes import run

from spikestrap.kernel.caching import cached

DECORATORS = {
    "njit": (numba.njit, [], {"nogil": True}),
    "cfunc": (numba.cfunc, ["int64(int64)"], {"nopython": True}),
}


def plus_one(x):
    return x + 1


def call(compiled):
    return (compiled.ctypes if hasattr(compiled, "ctypes") else compiled)(6)


@pytest.mark.parametrize("kind", DECORATORS)
def test_what_is_compiled_is_kept(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    decorator, arguments, options = DECORATORS[kind]
    assert call(cached(decorator, *arguments, **options)(plus_one)) == 7
    assert {path.suffix for path in tmp_path.rglob("*.nb*")} == {".nbi", ".nbc"}


@pytest.mark.parametrize("kind", DECORATORS)
def test_where_nothing_can_be_kept_it_is_compiled_all_the_same(kind, monkeypatch):
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    decorator, arguments, options = DECORATORS[kind]
    assert call(cached(decorator, *arguments, **options)(plus_one)) == 7


def test_all_kernels_do_without_a_cache():
    code = """
from numba.core import caching
caching.CacheImpl._locator_classes = []
from spikestrap.fixed import dynamics
from spikestrap.kernel import curve_loops, events, inference, pooling, threads
events._count()
"""
    done = run(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
