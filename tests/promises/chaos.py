"""The promise that anything may come together."""

from __future__ import annotations

import random

from tests import chaos, chaos_together
from tests.promises.registry import Run, promise


@promise("chaos", full=600, unit="seconds of anything", least=5)
def anything_together(run: Run) -> str:
    """Programs, ops, threads, forks, libraries, signals and deaths as they come: all accounted."""
    seed = random.SystemRandom().randrange(1 << 30)
    return f"seed {seed}: {chaos.run(seed, run.count, run.account)}"


@promise("chaos-together", full=600, unit="seconds of several controllers", least=6)
def controllers_together(run: Run) -> str:
    """Several controllers with ops of all kinds come, go, die and are followed: all accounted."""
    seed = random.SystemRandom().randrange(1 << 30)
    return f"seed {seed}: {chaos_together.run(seed, run.count, run.account)}"
