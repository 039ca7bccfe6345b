"""Runs promises: `python -m tests.promises [--full | --scale 0.01] [--jobs N] [--list] [NAME ...]`.

Prints one line each, PASS or FAIL with a figure and seconds; the exit code is 1 if one is
broken. `--full` without names also writes the lines to docs/promises.log, those of a run that
was cut off as well.
"""

from __future__ import annotations

import argparse
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from tests.promises.registry import Outcome, Promise, keep, load, runs_of
from tests.support.machine import describe
from tests.support.unprivileged import Account

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
    log = None
    if options.full and not options.names:
        log = lambda lines: LOG.write_text("\n".join(lines) + "\n")  # noqa: E731
    broken = run(chosen, 1.0 if options.full else options.scale, options.jobs, log)
    return 1 if broken or not chosen else 0


def run(
    chosen: list[Promise],
    scale: float,
    jobs: int = 1,
    log: Callable[[list[str]], object] | None = None,
) -> int:
    """Prints a line for each and gives all so far to `log`; the number of broken promises."""
    lines: list[str] = []

    def say(line: str) -> None:
        print(line, flush=True)
        lines.append(line)
        if log is not None:
            log(lines)

    beside = f", {jobs} at a time" if jobs > 1 else ""
    say(f"# {time.strftime('%Y-%m-%d')} scale {scale:g}{beside}, commit {commit()}: {describe()}")
    broken = 0
    for outcome in outcomes(runs_of(chosen), scale, jobs):
        broken += not outcome.kept
        say(str(outcome))
    say(f"# {len(lines) - 1 - broken} kept, {broken} broken")
    return broken


def outcomes(runs: list[tuple[Promise, Account]], scale: float, jobs: int) -> Iterator[Outcome]:
    """Of every run, as they end."""
    if jobs == 1:
        yield from (keep(promise, account, scale) for promise, account in runs)
        return
    # Interpreters of their own: what a promise forks has no threads of the pool's.
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=fresh, max_tasks_per_child=1) as pool:
        futures = [pool.submit(keep, promise, account, scale) for promise, account in runs]
        for future in as_completed(futures):
            yield future.result()


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
    parser.add_argument("--jobs", type=int, default=1, help="how many at a time")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    parser.add_argument("names", nargs="*", metavar="NAME")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
