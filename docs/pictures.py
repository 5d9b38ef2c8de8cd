"""Draws the pictures of these pages: runs every example of the gallery, into docs/pictures.

python docs/pictures.py           # all of them, a few minutes
python docs/pictures.py crossover # those whose names hold this
"""

import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parent
EXAMPLES = DOCS.parent / "examples" / "gallery"


def main() -> None:
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    for script in sorted(EXAMPLES.glob("*.py")):
        if wanted in script.stem and script.stem != "common":
            print(f"== {script.stem}", flush=True)
            subprocess.run([sys.executable, script, "--out", DOCS / "pictures"], check=True)


if __name__ == "__main__":
    main()
