"""What all tests share: the account they run as, and marks by directory.

A live test takes `account` and so runs once as root and once without any privilege (as root),
or once as whoever runs the suite.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.machine import describe
from tests.support.unprivileged import Account, accounts, cache_of

MARK_OF_DIRECTORY = {"live": "live", "oracle": "oracle", "promises": "promise"}
HERE = Path(__file__).resolve().parent

settings.register_profile("fentry", deadline=None)  # no test is about time
settings.load_profile("fentry")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # we fork: numpy must start no threads


@pytest.fixture(params=accounts(), ids=lambda account: account.name)
def account(request: pytest.FixtureRequest) -> Account:
    """Who runs target and controller in this test."""
    chosen: Account = request.param
    return chosen


@pytest.fixture
def soon_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A detach waits for a moment only until a thread has left our code: it will not."""
    monkeypatch.setattr("fentry.dispatch.detach.REMOVE_LIMIT_S", 0.2)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            directory = item.path.relative_to(HERE).parts[0]
            if mark := MARK_OF_DIRECTORY.get(directory):
                item.add_marker(mark)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workerinput") or os.environ.get("FENTRY_TESTS_GO_ON"):
        return  # one of several processes of one run: another one tidies up
    for account in accounts():
        shutil.rmtree(cache_of(account.uid), ignore_errors=True)


def pytest_report_header() -> str:
    names = ", ".join(account.name for account in accounts())
    return f"machine: {describe()}\nlive tests run as: {names}"
