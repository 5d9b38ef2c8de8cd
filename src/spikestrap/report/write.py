"""From the folder of a run to the page in a file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ..errors import SpikestrapError
from ..files import write_file
from ..train.run import REPORT
from .gather import gather
from .page import render


def write_report(
    run: Path, *, data: Path | None = None, evaluate: bool = True, out: Path | None = None
) -> dict[str, Any]:
    """Write the report of a run.

    Args:
        run: the run directory.
        data: the folder of the data set; None for the one it was trained with.
        evaluate: whether to run the network on test images, for what needs them.
        out: the file; None for ``report.html`` in the run directory.

    Returns:
        run, file, bytes, images (evaluated for it, at the run's T), seconds.

    Raises:
        SpikestrapError: a file of the run is missing or damaged, the data cannot be found, or
            the file cannot be written; the file is then as it was.
    """
    start = time.perf_counter()
    file = run / REPORT if out is None else out
    # Before the work, which takes a while.
    if file.is_dir() or not (file.parent.is_dir() or out is None):
        raise SpikestrapError(f"--out: expected a file in a folder that exists, got {file}")
    report = gather(run, data, evaluate)
    page = render(report).encode()
    write_file(file, page)
    return {
        "run": str(run),
        "file": str(file),
        "bytes": len(page),
        "images": 0 if report.measured is None else report.measured.images,
        "seconds": time.perf_counter() - start,
    }
