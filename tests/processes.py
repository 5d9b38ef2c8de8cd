"""Runs a script of a test in several processes that gloo connects, as `torchrun` would."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import spikestrap

_HEADER = """
import os, sys, torch, torch.distributed as dist
import spikestrap as ss
from spikestrap import processes
dist.init_process_group("gloo")
rank, count = dist.get_rank(), dist.get_world_size()
torch.manual_seed(0)
def same(tensor):
    "Whether all processes hold this very tensor."
    others = [torch.empty_like(tensor) for _ in range(count)]
    dist.all_gather(others, tensor.contiguous())
    return all(torch.equal(other, tensor) for other in others)
"""
# None leaves while another still talks to it: gloo then ends that one.
_FOOTER = """
dist.barrier()
dist.destroy_process_group()
"""


def environment(**more):
    """This process's, in which the package under test is found from any folder."""
    source = str(Path(spikestrap.__file__).parents[1])
    path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **more}


def free_port():
    """At which processes can meet."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def run_in(count, script):
    """Runs a script in so many processes; all must end well."""
    where = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(count)}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", _HEADER + script + _FOOTER],
            env=environment(RANK=str(rank), LOCAL_RANK=str(rank), **where),
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    errors = [process.communicate(timeout=300)[1] for process in running]
    assert not any(process.returncode for process in running), "\n".join(errors)
    return errors
