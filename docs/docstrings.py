"""An extension of griffe, which reads the docstrings: ours are plain text, pages are Markdown.

Examples (``>>>``) become blocks of code, and a line that tells of a parameter, ``name: what it
is``, an item of a list. Both would otherwise run into the paragraph around them.
"""

import re
from typing import Any

import griffe

# Names at the very margin: what is indented stands under a heading such as "Args:", which griffe
# knows how to read.
ITEM = re.compile(r"(?P<names>[a-z_]\w*(?:, [a-z_]\w*)*): (?=\S)")


class Docstrings(griffe.Extension):
    """Rewrites every docstring before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **more: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value)


def to_markdown(text: str) -> str:
    """The docstring as Markdown."""
    lines: list[str] = []
    indent: str | None = None  # of the example that is open
    in_list = False
    for line in [*text.splitlines(), ""]:
        if indent is None and line.lstrip().startswith(">>>"):
            indent = line[: -len(line.lstrip())]
            lines += [] if not lines or not lines[-1] else [""]
            lines.append(f"{indent}```pycon")
        elif indent is not None and not line.strip():
            lines.append(f"{indent}```")
            indent = None
        if indent is None and (item := ITEM.match(line)):
            lines += [""] if lines and lines[-1] and not in_list else []
            names = ", ".join(f"`{name}`" for name in item["names"].split(", "))
            line = f"- {names}: {line[item.end() :]}"
            in_list = True
        in_list = in_list and bool(line.strip())
        lines.append(line)
    return "\n".join(lines).rstrip()
