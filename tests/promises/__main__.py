"""Runs promises: `python -m tests.promises [--full | --scale 0.01] [--list] [NAME ...]`.

Prints one line each, PASS or FAIL with a figure and seconds; the exit code is 1 if one is
broken. `--full` without names also writes the lines to docs/promises.log.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from tests.promises.registry import Promise, keep, load, runs_of
from tests.support.machine import describe

LOG = Path(__file__).resolve().parent.parent.parent / "docs" / "promises.log"


def main(arguments: list[str] | None = None) -> int:
    options = read_options(arguments)
    promises = load()
    if options.list:
        for promise in promises.values():
            print(f"{promise.name:32} {promise.full:>10,} {promise.unit}")
        return 0
    unknown = [name for name in options.names if name not in promises]
    if unknown:
        print(f"no promise called {', '.join(unknown)}; --list prints all", file=sys.stderr)
        return 2
    chosen = [promises[name] for name in options.names] or list(promises.values())
    lines, broken = run(chosen, 1.0 if options.full else options.scale)
    if options.full and not options.names:
        LOG.write_text("\n".join(lines) + "\n")
        print(f"written to {LOG}")
    return 1 if broken or not chosen else 0


def run(chosen: list[Promise], scale: float) -> tuple[list[str], int]:
    """The printed lines and the number of broken promises."""
    lines = [f"# {time.strftime('%Y-%m-%d')} scale {scale:g}, commit {commit()}: {describe()}"]
    print(lines[0], flush=True)
    broken = 0
    for promise, account in runs_of(chosen):
        outcome = keep(promise, account, scale)
        broken += not outcome.kept
        lines.append(str(outcome))
        print(lines[-1], flush=True)
    lines.append(f"# {len(lines) - 1 - broken} kept, {broken} broken")
    print(lines[-1], flush=True)
    return lines, broken


def commit() -> str:
    """What of the project is tested, "?" outside of a git checkout."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=LOG.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.strip() or "?"


def read_options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.promises", description=__doc__)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--full", action="store_true", help="full counts, and write the log")
    size.add_argument("--scale", type=float, default=0.01, help="part of the full count")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    parser.add_argument("names", nargs="*", metavar="NAME")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
