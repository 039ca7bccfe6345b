"""The promise that anything may come together."""

from __future__ import annotations

import random

from tests import chaos
from tests.promises.registry import Run, promise


@promise("chaos", full=1_200, unit="seconds of anything", least=8)
def anything_together(run: Run) -> str:
    """Programs, ops, threads, forks, libraries, signals and deaths as they come: all accounted."""
    seed = random.SystemRandom().randrange(1 << 30)
    return f"seed {seed}: {chaos.run(seed, run.count, run.account)}"
