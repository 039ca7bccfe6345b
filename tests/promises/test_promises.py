"""Every promise at a hundredth of its full count; `make promises` runs them at full count."""

from __future__ import annotations

import pytest

from tests.promises.registry import Promise, keep, load, runs_of
from tests.support.unprivileged import Account

SCALE = 0.01
RUNS = runs_of(load().values())


@pytest.mark.parametrize(
    ("promise", "account"), RUNS, ids=[f"{promise.name}-{who.name}" for promise, who in RUNS]
)
def test_promise_is_kept_at_a_hundredth(promise: Promise, account: Account) -> None:
    outcome = keep(promise, account, SCALE)

    assert outcome.kept, str(outcome)
