"""Runs commands in processes of their own, each to its end; also several that gloo connects."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import spikestrap

# Many times what any command of the tests takes, and what others get once one has failed.
SECONDS, SECONDS_AFTER_FAILURE = 600, 20
_HEADER = """
import gc, os, sys, torch, torch.distributed as dist
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
def script():
"""
# Models go before the group: if a DistributedDataParallel is the last to hold it, torch waits,
# with the interpreter's lock, for a thread that may need that lock. And no process leaves while
# another still talks to it: gloo then ends that one.
_FOOTER = """
script()
gc.collect()
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


def run(*command, seconds=SECONDS, cwd=None, **more):
    """A command's exit code and what it printed; more: of its environment.

    Raises TimeoutError if it takes longer.
    """
    (done,) = run_together([(command, more)], seconds, cwd)
    return done


def run_together(commands, seconds=SECONDS, cwd=None):
    """`run` for pairs (command, more) at once; when one fails, the others are ended soon after."""
    with tempfile.TemporaryDirectory() as folder:
        running = [
            _Running(list(map(str, command)), more, cwd, Path(folder) / str(number))
            for number, (command, more) in enumerate(commands)
        ]
        try:
            _wait(running, seconds)
        finally:
            for each in running:
                each.end()
        return [each.done() for each in running]


def _wait(running, seconds):
    end = time.monotonic() + seconds
    while any(each.process.poll() is None for each in running):
        failed = any(each.process.returncode for each in running)
        if time.monotonic() > end:
            if failed:
                return
            said = "\n".join(each.done().stderr for each in running)
            raise TimeoutError(f"more than {seconds} s: {running[0].process.args}\n{said}")
        if failed:
            end = min(end, time.monotonic() + SECONDS_AFTER_FAILURE)
        time.sleep(0.02)


class _Running:
    """A process that leads a group of its own and prints into files.

    A pipe would be waited for as long as anything that the process left behind holds it, as a
    browser's helpers do.
    """

    def __init__(self, command, more, cwd, file):
        self.printed = [file.with_suffix(suffix) for suffix in (".out", ".err")]
        with self.printed[0].open("w") as out, self.printed[1].open("w") as err:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                env=environment(**more),
                cwd=cwd,
            )

    def end(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def done(self):
        printed = [file.read_text() for file in self.printed]
        return subprocess.CompletedProcess(self.process.args, self.process.returncode, *printed)


def run_in(count, script):
    """Runs a script in so many processes, as `torchrun` would; all must end well."""
    where = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(count)}
    whole = _HEADER + textwrap.indent(script, "    ") + _FOOTER
    command = (sys.executable, "-c", whole)
    done = run_together(
        [(command, {"RANK": str(rank), "LOCAL_RANK": str(rank), **where}) for rank in range(count)]
    )
    errors = [each.stderr for each in done]
    assert not any(each.returncode for each in done), "\n".join(errors)
    return errors
