"""Every Python block of the pages and the README runs, every command of their shell blocks exists.

The blocks of a page run from top to bottom, in one scope and in an empty folder. A comment on the
line before a block, ``<!-- not run: REASON -->``, leaves it out.
"""

import re
import shlex
from pathlib import Path

import pytest
import typer
import typer.main

from spikestrap.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Whose Python runs in tests that also look at what it gives.
ELSEWHERE = {"from-lava-dl.md", "hardware.md", "own-neuron.md"}
BLOCK = re.compile(
    r"^(?P<mark><!-- not run: .+ -->\n)?(?P<indent> *)```(?P<language>\w*).*\n"
    r"(?P<code>(?:.*\n)*?)(?P=indent)```$",
    re.MULTILINE,
)


def blocks(page, languages):
    """(line, code) of a page's blocks in these languages, but for those marked."""
    text = page.read_text()
    for block in BLOCK.finditer(text):
        if block["language"] in languages and not block["mark"]:
            yield text.count("\n", 0, block.start("code")) + 1, block["code"]


def pages_with(*languages):
    return [
        pytest.param(page, id=str(page.relative_to(ROOT)))
        for page in PAGES
        if any(blocks(page, languages)) and not (page.name in ELSEWHERE and "python" in languages)
    ]


@pytest.mark.filterwarnings("ignore")  # of the libraries shown
@pytest.mark.parametrize("page", pages_with("python"))
def test_python_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Classes look their module up, dataclasses and pickle among those who ask.
    scope = {"__name__": "__main__"}
    for line, code in blocks(page, ("python",)):
        # As many lines before it as on the page: a traceback then tells the page's line.
        exec(compile("\n" * (line - 1) + code, page, "exec"), scope)


def test_own_parameters_of_foreign_neurons_stay_as_they_are_in_the_loop_shown():
    _, code = next(blocks(ROOT / "docs/foreign-libraries.md", ("python",)))
    learns = code.replace("init_hidden=True", "init_hidden=True, learn_beta=True")
    assert learns != code
    scope = {"__name__": "__main__"}
    exec(learns, scope)
    first, second = scope["trained"][1], scope["trained"][5]
    assert first.beta.item() == second.beta.item() == pytest.approx(0.9)


@pytest.mark.parametrize("page", pages_with("sh"))
def test_commands_exist(page):
    for line, code in blocks(page, ("sh",)):
        for command in code.replace("\\\n", " ").splitlines():
            problem = problem_of(shlex.split(command, comments=True))
            assert problem is None, f"{page.name}, block at line {line}: {command}: {problem}"


def problem_of(words):
    """What is wrong with a command that only we can know: ours, a script, a target of make."""
    match words:
        case ["spikestrap", name, *arguments] if not name.startswith("-"):
            command = typer.main.get_command(app).commands.get(name)
            if command is None:
                return f"no command {name}"
            try:
                command.make_context(name, arguments)
            except Exception as error:
                return f"{error}"
        case ["python", script, *_] if not (ROOT / script).is_file():
            return f"no file {script}"
        case ["make", target, *_]:
            if not re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE):
                return f"no target {target}"
    return None


def test_every_python_block_is_found():
    """However it is written: the pattern above must not skip one in silence."""
    for page in PAGES:
        text = page.read_text()
        fences = len(re.findall(r"^\s*(?:```|~~~)\s*py", text, re.MULTILINE))
        assert len(list(blocks(page, ("python",)))) + text.count("<!-- not run: ") >= fences, page
