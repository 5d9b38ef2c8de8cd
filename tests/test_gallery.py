"""Every example of the gallery runs, draws its picture, and stands on the page with it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = [p for p in sorted((ROOT / "examples/gallery").glob("*.py")) if p.stem != "common"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_draws_its_picture(script, tmp_path):
    done = subprocess.run(
        [sys.executable, script, "--quick", "--out", tmp_path / "pictures"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    picture = tmp_path / "pictures" / f"{script.stem}.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert done.stdout.splitlines()[-1] == str(picture)
    assert len(done.stdout.splitlines()) > 1


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_stands_on_the_page(script):
    page = (ROOT / "docs" / "gallery.md").read_text()
    assert f"`{script.name}`" in page
    assert f"(pictures/{script.stem}.png)" in page
    assert (ROOT / "docs" / "pictures" / f"{script.stem}.png").stat().st_size < 150_000
