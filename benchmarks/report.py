"""Runs the benchmarks of speed and writes docs/performance.md: their tables, and the machine.

    python benchmarks/report.py                             # on an idle machine
    python benchmarks/report.py --quick --out /tmp/page.md  # only sees that it runs

Each benchmark runs in a process of its own. The page is replaced once all of them have ended well.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import platform
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "performance.md"
DEFAULT_ALLOCATOR = "neuron --default-allocator"
# In the page's order. Those that train, and measure accuracies, have pages of their own.
BENCHMARKS = (
    "neuron",
    DEFAULT_ALLOCATOR,
    "compiled",
    "step",
    "conv",
    "sweep",
    "foreign",
    "inference",
)
# What is in a result beside its ratios and the facts of its setting.
NOT_FACTS = {"spread", "milliseconds", "rounds", "quick", "allocator", "threads", "versions"}

HEAD = """# Performance

Times of one training step, of one layer, forward and backward, or of inference, on one machine's
CPU. In each round all contenders take their turn, so that a machine that slows down slows all of
them; a ratio is taken round by round. Only ratios carry over to another machine, and not all of
those.

| | |
|---|---|
{machine}

Written by one command, which runs the benchmarks and fills in this page:

```sh
{environment}python benchmarks/report.py
```
"""


def run(name: str, extra: list[str]) -> dict[str, Any]:
    """The JSON of one benchmark; name: that of its script, and options behind it."""
    script, *options = name.split()
    command = [sys.executable, str(HERE / f"{script}.py"), "--json", *options, *extra]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"report: {name} ended with {done.returncode}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def machine() -> dict[str, str]:
    """What the times depend on."""
    cpu = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass  # not Linux, or a processor without a name
    return {
        "processor": f"{cpu}, {platform.machine()}, {os.cpu_count()} cores",
        "system": f"{platform.system()}, Python {platform.python_version()}",
        "measured": f"{date.today():%Y-%m-%d}",
    }


def page(results: dict[str, dict[str, Any]], about: dict[str, str]) -> str:
    """The page of these results, each under its benchmark's name."""
    first = next(iter(results.values()))
    versions: dict[str, str] = {}
    for result in results.values():
        versions |= result["versions"]
    rows = {
        **about,
        "threads": ", ".join(f"{name} {count}" for name, count in first["threads"].items()),
        "memory": f"glibc's allocator, {first['allocator']}",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    threads = {"OMP_NUM_THREADS": "torch", "NUMBA_NUM_THREADS": "numba"}
    environment = " ".join(
        f"{variable}={first['threads'][library]}" for variable, library in threads.items()
    )
    head = HEAD.format(
        machine="\n".join(f"| {name} | {value} |" for name, value in rows.items()),
        environment=f"{environment} ",
    )
    return "\n".join([head, *(section(name, result) for name, result in results.items())])


def section(name: str, result: dict[str, Any]) -> str:
    """One benchmark: what it says of itself, its ratios and its times."""
    script, *options = name.split()
    says = ast.get_docstring(ast.parse((HERE / f"{script}.py").read_text())) or ""
    title, _, rest = says.partition("\n\n")
    title = " ".join(title.split()).rstrip(".")
    about = " ".join(rest.replace("*", "\\*").split())  # asterisks that are none of Markdown's
    command = " ".join([f"benchmarks/{script}.py", *options])
    if name == DEFAULT_ALLOCATOR:
        title += "; torch's memory as it comes"
        about = (
            "The same where glibc's allocator is left as it is, as in a script that uses torch and "
            "does not call `keep_memory`: each large tensor of torch's is new memory, which the "
            "system clears. Results of our kernels stay with the process either way."
        )
    facts = {key: result[key] for key in result if key not in NOT_FACTS | result["spread"].keys()}
    ratios = {key: (result[key], *result["spread"][key]) for key in result["spread"]}
    times = {
        key: (value["median"], value["min"], value["max"])
        for key, value in result["milliseconds"].items()
    }
    quick = "\n**Tiny sizes: says nothing about speed.**\n" if result["quick"] else ""
    setting = ", ".join(f"{key} {_plain(value)}" for key, value in facts.items())
    return f"""## {title}

`{command}`. {about}
{quick}
{result["rounds"]} rounds; {setting}.

{_table("ratio", ratios)}

{_table("milliseconds", times)}
"""


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return "(" + ", ".join(f"{key} {_plain(each)}" for key, each in value.items()) + ")"
    if isinstance(value, list):
        return "(" + ", ".join(map(_plain, value)) + ")"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _table(title: str, rows: dict[str, tuple[float, float, float]]) -> str:
    lines = [f"| {title} | median | least | most |", "|---|---|---|---|"]
    for name, values in rows.items():
        cells = " | ".join(f"{value:.4g}" for value in values)
        lines.append(f"| {name.replace('_', ' ')} | {cells} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", choices=BENCHMARKS, nargs="+", default=BENCHMARKS)
    parser.add_argument("--rounds", type=int, help="rounds to time")
    parser.add_argument("--quick", action="store_true", help="tiny sizes; needs --out")
    parser.add_argument("--out", type=Path, help=f"default: {PAGE.name} of the documentation")
    options = parser.parse_args()
    partial = options.quick or tuple(options.only) != BENCHMARKS
    if partial and options.out is None:
        parser.error("--quick and --only need --out: the documentation has the whole page only")
    extra = ["--quick"] if options.quick else []
    extra += [] if options.rounds is None else ["--rounds", str(options.rounds)]
    results = {}
    for name in options.only:
        print(f"== {name}", file=sys.stderr, flush=True)
        results[name] = run(name, extra)
    out = options.out or PAGE
    temporary = out.with_name(f".{out.name}")
    temporary.write_text(page(results, machine()))
    temporary.replace(out)
    print(out)


if __name__ == "__main__":
    main()
