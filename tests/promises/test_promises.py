"""Every promise at a hundredth of its full count, which the accounts share; `make promises` runs
them at full count, with each account.
"""

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
    sharers = sum(other is promise for other, _ in RUNS)
    outcome = keep(promise, account, SCALE / sharers)

    assert outcome.kept, str(outcome)
