"""Files from outside: damaged, lying, hostile."""

import io
import struct
import subprocess
import sys

import h5py
import nir
import numpy as np
import pytest
import torch

import spikestrap as ss
from spikestrap import block
from spikestrap.exchange import hdf5, hdf5_worker
from spikestrap.exchange import nir as exchange

BOUND = 2**24


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    torch.manual_seed(0)
    neuron = {"threshold": 1.0, "current_decay": 0.3, "voltage_decay": 0.1}
    net = ss.Network(block.cuba.Dense(neuron, 6, 5), block.cuba.Affine(neuron, 5, 3), time_steps=4)
    path = tmp_path_factory.mktemp("nir") / "net.nir"
    exchange.write(net, path)
    return path.read_bytes()


@pytest.fixture
def file(written, tmp_path):
    """The written file, open for changes under 'node/nodes'."""
    path = tmp_path / "net.nir"
    path.write_bytes(written)
    return path


def refused(path, match, **options):
    with pytest.raises(ss.SpikestrapError, match=match) as caught:
        exchange.read(path, **options)
    assert "\n" not in str(caught.value)


def replace(path, name, **options):
    with h5py.File(path, "r+") as opened:
        del opened["node/nodes"][name]
        return opened["node/nodes"].create_dataset(name, **options)


WEIGHT, LIF = "block0_linear/weight", "block0_cubalif"


def parsed(path, bound=BOUND):
    return hdf5_worker.parse(str(path), bound)


def test_the_process_gives_what_the_parser_gives(file):
    def compare(a, b):
        assert type(a) is type(b)
        if isinstance(a, dict):
            assert list(a) == list(b)
            for key in a:
                compare(a[key], b[key])
        else:
            np.testing.assert_array_equal(a, b)

    compare(hdf5.read_tree(file, BOUND), parsed(file))


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f8", "<f2", "<i8", ">i2", "u1", "?"])
@pytest.mark.parametrize("packed", [{}, {"compression": "gzip"}, {"chunks": (3, 2)}])
@pytest.mark.parametrize("shuffle", [False, True])
def test_arrays_are_unpacked_as_h5py_does(dtype, packed, shuffle, tmp_path):
    values = np.random.default_rng(0).integers(0, 2, (7, 5)).astype(dtype)
    options = {**packed, "shuffle": shuffle} if packed else {}
    with h5py.File(tmp_path / "a.h5", "w") as opened:
        opened.create_dataset("x", data=values, **options)
    np.testing.assert_array_equal(parsed(tmp_path / "a.h5")["x"], values)


def test_memory_limited_from_outside(file):
    pytest.importorskip("resource")
    worker = [sys.executable, hdf5_worker.__file__, file, str(BOUND)]
    limited = ["sh", "-c", 'ulimit -v 4000000 && exec "$@"', "sh", *worker]
    done = subprocess.run(limited, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    hdf5_worker.send(parsed(file), same := io.BytesIO())
    assert done.stdout == same.getvalue()


def test_a_system_that_takes_no_limit(file, monkeypatch, capsysbinary):
    resource = pytest.importorskip("resource")

    def refuse(*_):
        raise ValueError("current limit exceeds maximum limit")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert hdf5_worker.main(str(file), BOUND) == 0
    hdf5_worker.send(parsed(file), same := io.BytesIO())
    assert capsysbinary.readouterr().out == same.getvalue()


def test_not_there_not_hdf5_cut_short(written, tmp_path):
    refused(tmp_path / "missing.nir", "no such file")
    path = tmp_path / "net.nir"
    for content in (b"", b"not HDF5", written[:1000], written[:-1000]):
        path.write_bytes(content)
        refused(path, "not a readable HDF5 file")


def test_a_text_that_hdf5_never_ends_to_read(written, tmp_path):
    """The size of a text in HDF5's heap wraps around: the library loops there."""
    heap = written.index(b"GCOL") + 16
    damaged = bytearray(written)
    damaged[heap + 8 : heap + 16] = struct.pack("<Q", 2**64 - 16)
    path = tmp_path / "net.nir"
    path.write_bytes(damaged)
    with pytest.raises(ss.SpikestrapError, match=r"not a readable HDF5 file"):
        hdf5.read_tree(path, BOUND, seconds=2)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (WEIGHT, {"shape": (2**20, 2**20), "dtype": "f4"}, "declares 4398046511104 bytes"),
        (WEIGHT, {"shape": (2**10, 2**10), "dtype": "f4"}, "declares 4194304 bytes.* holds 0"),
        (
            WEIGHT,
            {"shape": (2**10, 2**10), "dtype": "f4", "compression": "gzip"},
            "declares 4194304 bytes.* holds 0",
        ),
        (WEIGHT, {"data": np.ones((5, 6), complex)}, "type complex128"),
        (WEIGHT, {"data": np.ones((5, 6), np.longdouble)}, "expected numbers or text"),
        (WEIGHT, {"data": np.ones((5, 6)), "compression": "lzf"}, "filters .32000.; expected gzip"),
        (WEIGHT, {"data": h5py.Empty("f4")}, "is empty"),
        (WEIGHT, {"data": np.ones((5, 7))}, "weight has shape"),
        (WEIGHT, {"data": np.full((5, 6), np.nan)}, "weight holds NaN"),
        (WEIGHT, {"data": "text"}, "malformed"),
        (WEIGHT, {"data": 3.0}, "malformed"),
        (f"{LIF}/tau_mem", {"data": np.ones(4)}, "malformed: All parameters"),
        (f"{LIF}/tau_mem", {"data": np.full(5, -1.0)}, "tau_mem must be > 0"),
        (f"{LIF}/type", {"data": "Cuba"}, "has the type 'Cuba'"),
        (f"{LIF}/type", {"data": 3}, "has the type 3"),
        (f"{LIF}/type", {"data": "NIRGraph"}, "has the type 'NIRGraph'"),
        ("output/shape", {"data": np.array([4])}, "output has shape"),
        ("output/shape", {"data": "x"}, "malformed|whole numbers"),
    ],
)
def test_a_data_set_that_is_not_what_it_should_be(name, options, message, file):
    replace(file, name, **options)
    refused(file, message, max_bytes=BOUND)


def test_data_that_unpacks_to_more_than_declared(file):
    import zlib

    bomb = zlib.compress(bytes(10**7))
    with h5py.File(file, "r+") as opened:
        del opened["node/nodes"][WEIGHT]
        data = opened["node/nodes"].create_dataset(
            WEIGHT, (5, 6), "f4", chunks=(5, 6), compression="gzip"
        )
        data.id.write_direct_chunk((0, 0), bomb)
    refused(file, "chunk of 121 bytes, expected 120")


def test_links_elsewhere_are_not_followed(file, tmp_path):
    for link in (h5py.SoftLink("/node"), h5py.ExternalLink("other.h5", "/x")):
        with h5py.File(file, "r+") as opened:
            if "loop" in opened:
                del opened["loop"]
            opened["loop"] = link
        refused(file, "is a link elsewhere")
    with h5py.File(file, "r+") as opened:
        del opened["loop"]
        opened["node/loop"] = opened["node"]
    refused(file, "groups deeper than 8")


def test_data_outside_the_file_is_not_read(file, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(120))
    replace(file, WEIGHT, shape=(5, 6), dtype="f4", external=[(str(secret), 0, 120)])
    refused(file, "lies outside the file")


def test_missing_groups(file):
    for name, message in (
        ("node/nodes/output", "'output', which is missing"),
        ("node/edges", "one chain of all 4 nodes"),
        ("node/nodes", "has no nodes"),
        ("node", "expected a NIRGraph"),
    ):
        with h5py.File(file, "r+") as opened:
            del opened[name]
        refused(file, message)


def test_more_than_the_bound_is_not_read(file):
    refused(file, "at most 100 bytes are read", max_bytes=100)


def test_nir_metadata_of_the_wrong_kind(file):
    with h5py.File(file, "r+") as opened:
        opened["node/metadata"].create_dataset("x", data=1.0)
        del opened["node/metadata/dt"]
        opened["node/metadata/dt"] = "soon"
    refused(file, "dt must be a number")
    assert nir.read(file).metadata["dt"] == "soon"
