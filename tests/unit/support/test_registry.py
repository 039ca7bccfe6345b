"""tests/promises: counts by scale, a line each, and a broken promise is told."""

from __future__ import annotations

import pytest
from tests.promises.registry import Promise, Run, keep, runs_of
from tests.support.unprivileged import Account, accounts

ROOT_OR_US = accounts()[0]


def test_a_kept_promise_prints_pass_with_its_figure() -> None:
    promise = Promise("toggle", 100_000, "toggles", lambda run: f"{run.count} seen")

    outcome = keep(promise, Account("root", 0), 0.01)

    assert str(outcome) == "PASS toggle[root] 1,000 toggles: 1000 seen  (0.0 s)"


def test_a_broken_promise_prints_fail_with_the_fault() -> None:
    def body(run: Run) -> str:
        assert run.count == 5, "three were lost\nmore"
        return ""

    outcome = keep(Promise("exact", 40, "calls", body), ROOT_OR_US, 1.0)

    assert not outcome.kept
    assert "AssertionError: three were lost" in str(outcome)
    assert str(outcome).startswith("FAIL exact[")


@pytest.mark.parametrize(("full", "scale", "count"), [(100, 0.01, 1), (10, 0.01, 1), (250, 1, 250)])
def test_a_count_is_scaled_and_never_zero(full: int, scale: float, count: int) -> None:
    assert Promise("p", full, "u", lambda run: "").count(scale) == count


def test_a_promise_runs_as_each_account_unless_it_says_otherwise() -> None:
    each = Promise("each", 1, "u", lambda run: "")
    once = Promise("once", 1, "u", lambda run: "", as_each=False)

    assert runs_of([each, once]) == [(each, a) for a in accounts()] + [(once, ROOT_OR_US)]
