"""Every example of the gallery runs, draws its picture, and stands on the page with it."""

import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = [p for p in sorted((ROOT / "examples/gallery").glob("*.py")) if p.stem != "common"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_draws_its_picture(script, tmp_path, monkeypatch, capsys):
    # As `python examples/gallery/...` would, but with torch loaded already.
    monkeypatch.setattr(sys, "argv", [str(script), "--quick", "--out", str(tmp_path / "pictures")])
    monkeypatch.syspath_prepend(script.parent)
    monkeypatch.delitem(sys.modules, "common", raising=False)
    runpy.run_path(str(script), run_name="__main__")
    monkeypatch.delitem(sys.modules, "common", raising=False)
    picture = tmp_path / "pictures" / f"{script.stem}.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    *numbers, last = capsys.readouterr().out.splitlines()
    assert last == str(picture)
    assert numbers


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_stands_on_the_page(script):
    page = (ROOT / "docs" / "gallery.md").read_text()
    assert f"`{script.name}`" in page
    assert f"(pictures/{script.stem}.png)" in page
    assert (ROOT / "docs" / "pictures" / f"{script.stem}.png").stat().st_size < 150_000
