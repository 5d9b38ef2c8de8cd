"""Builds a wheel, installs it into an empty environment and trains with it, as a user would.

    python .ci/wheel.py                     # the Python that runs this
    python .ci/wheel.py --python python3.13 # another one

What is built lands in dist/. The environment is made in a temporary folder, and everything runs
there, so that nothing of the clone can be imported by chance.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
# The user's own packages must not stand in for what the wheel forgot to ask for.
CLEAN = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}


def run(*command: str | Path, cwd: Path) -> str:
    """Standard output of a command; ends the script where it fails."""
    done = subprocess.run(command, cwd=cwd, env=CLEAN, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"wheel: {' '.join(map(str, command))} ended with {done.returncode}")
    return done.stdout


def build() -> Path:
    """The wheel, made from the source distribution, so that this one is whole as well."""
    run(sys.executable, "-m", "build", "--outdir", "dist", ROOT, cwd=ROOT)
    return max((ROOT / "dist").glob("spikestrap-*.whl"), key=lambda path: path.stat().st_mtime)


def check(wheel: Path, python: str, folder: Path) -> None:
    run(python, "-m", "venv", "env", cwd=folder)
    scripts = folder / "env" / ("Scripts" if os.name == "nt" else "bin")
    install = (scripts / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(*install, "-c", ROOT / "constraints.txt", f"{wheel}[train]", cwd=folder)
    version = run(scripts / "spikestrap", "--version", cwd=folder).strip()
    expected = f"spikestrap {wheel.name.split('-')[1]}"
    if version != expected:
        sys.exit(f"wheel: expected {expected!r}, got {version!r}")
    typed = "import spikestrap; print(*spikestrap.__path__)"
    package = Path(run(scripts / "python", "-c", typed, cwd=folder).strip())
    if not (package / "py.typed").is_file():
        sys.exit(f"wheel: expected {package / 'py.typed'}")
    trained = run(scripts / "spikestrap", "train", "--epochs", "1", "--json", cwd=folder)
    accuracy = json.loads(trained.splitlines()[-1])["snn_accuracy"]
    which = run(scripts / "python", "-V", cwd=folder).strip()
    print(f"{wheel.name} on {which}: {version}, one epoch of digits gives {accuracy:.1f} %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--python", default=sys.executable, help="the Python to install into")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        check(build(), options.python, Path(folder))


if __name__ == "__main__":
    main()
