"""The page on scaling: its Python runs as it stands."""

import re
import warnings
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs/scaling.md"


def test_scaling():
    snippets = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(snippets) == 4
    names = {"__name__": "page"}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        for snippet in snippets:
            exec(compile(snippet, str(PAGE), "exec"), names)
