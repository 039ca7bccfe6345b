"""Refreshes the tables of docs/performance.md: python bench/table.py [BENCH ...]

Each bench is run as a command; what it prints replaces the text between its markers, under a line
that states machine, date, command and the load average before it.
"""

from __future__ import annotations

import datetime
import os
import re
import subprocess
import sys
from pathlib import Path

from support import CHECKOUT, describe, environment

PAGE = CHECKOUT / "docs" / "performance.md"


def begin(name: str) -> str:
    """The marker before the tables of a bench."""
    return f"<!-- {name}: begin, written by bench/table.py -->"


def end(name: str) -> str:
    """The marker behind them."""
    return f"<!-- {name}: end -->"


def refreshed(page: str, name: str, text: str) -> str:
    """`page` with `text` between the markers of a bench. Raises SystemExit without markers."""
    pattern = re.compile(re.escape(begin(name)) + ".*?" + re.escape(end(name)), re.DOTALL)
    if not pattern.search(page):
        sys.exit(f"{PAGE.name} has no markers for {name}:\n{begin(name)}\n{end(name)}")
    return pattern.sub(lambda _: f"{begin(name)}\n{text}\n{end(name)}", page)


def measured(path: Path) -> str:
    """What a bench prints, under a line about where and when."""
    load = os.getloadavg()[0]
    done = subprocess.run(
        [sys.executable, str(path)], env=environment(), stdout=subprocess.PIPE, text=True,
        check=True, cwd=CHECKOUT,
    )  # fmt: skip
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    head = f"{describe()}; {today}; `python bench/{path.name}`; load average before {load:.1f}"
    return f"\n{head}\n\n{done.stdout.strip()}\n"


def main() -> None:
    """Run the benches that are named, or all, and write the page after each."""
    names = [word.removesuffix(".py").rpartition("/")[2] for word in sys.argv[1:]]
    folder = Path(__file__).resolve().parent
    for path in sorted(folder.glob("bench_*.py")):
        if names and path.stem not in names:
            continue
        print(f"{path.stem} ...", flush=True)
        text = measured(path)
        PAGE.write_text(refreshed(PAGE.read_text(), path.stem, text))


if __name__ == "__main__":
    main()
