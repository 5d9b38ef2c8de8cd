"""A hook of mkdocs: puts the help text of every command into the page that asks for it."""

import os
import subprocess
import sys
from typing import Any

MARK = "<!-- help of every command -->"


def on_page_markdown(markdown: str, **where: Any) -> str:
    """The page, its mark replaced by a section for each command."""
    return markdown.replace(MARK, _sections()) if MARK in markdown else markdown


def _sections() -> str:
    import typer.main

    from spikestrap.cli import app

    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    return "\n\n".join(_section(*words) for words in ((), *((name,) for name in commands)))


def _section(*words: str) -> str:
    code = "from spikestrap.cli import main; main()"
    command = [sys.executable, "-c", code, *words, "--help"]
    wide = {**os.environ, "COLUMNS": "80"}  # whatever the terminal of who builds
    text = subprocess.run(command, check=True, capture_output=True, text=True, env=wide).stdout
    return f"## {' '.join(('spikestrap', *words))}\n\n```text\n{text.rstrip()}\n```"
