"""Priority while a target stands: taken where it is allowed, always given back."""

from __future__ import annotations

import os

import pytest
from tests.support.unprivileged import Account, accounts

from fentry.process.hurry import Hurry


def may_hurry() -> bool:
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        return False
    return True


def policies() -> list[int]:
    os.setpriority(os.PRIO_PROCESS, 0, 19)
    hurry = Hurry()
    found = [os.sched_getscheduler(0)]
    hurry.begin()
    hurry.begin()
    found.append(os.sched_getscheduler(0))
    hurry.end()
    hurry.end()
    return [*found, os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)]


@pytest.mark.parametrize("account", accounts(), ids=lambda account: account.name)
def test_taken_where_allowed_and_given_back(account: Account) -> None:
    inside = os.SCHED_FIFO if account.run(may_hurry) else os.SCHED_OTHER
    assert account.run(policies) == [os.SCHED_OTHER, inside, os.SCHED_OTHER, 19]


def test_a_policy_that_somebody_chose_is_left_alone() -> None:
    def chosen() -> list[int]:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        hurry = Hurry()
        hurry.begin()
        inside = os.sched_getscheduler(0)
        hurry.end()
        return [inside, os.sched_getscheduler(0)]

    assert accounts()[0].run(chosen) == [os.SCHED_BATCH, os.SCHED_BATCH]
