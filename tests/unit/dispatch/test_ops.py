"""Which callback, function and flags go together, and who may redirect what."""

from __future__ import annotations

import numpy as np
import pytest
from tests.unit.dispatch.test_plan import ALL, SITES

from fentry.dispatch.ops import Callback, Flags, Ops, refuse_flags
from fentry.dispatch.plan import make_plan, redirected_twice
from fentry.errors import BadInput
from fentry.trampolines.native import CFunction
from fentry.x86.calls import CodeTraits

FULL = Flags.SAVE_REGS | Flags.IPMODIFY
FUNCTION = CFunction("callback", b"\xc3", b"", 0, 8, CodeTraits())
LEAVING = CFunction("callback", b"\xc3", b"", 0, 8, CodeTraits(leaves=True))


def redirecting(number: int, *members: int, flags: Flags = FULL) -> Ops:
    wanted = np.zeros(SITES, np.bool_)
    wanted[list(members)] = True
    return Ops(Callback.CALL, ("f",), flags=flags, id=number, members=wanted, function=FUNCTION)


@pytest.mark.parametrize(
    ("ops", "message"),
    [
        (Ops(Callback.COUNT, ("f",), flags=Flags.SAVE_REGS), "are for Callback.CALL"),
        (Ops(Callback.RECORD, ("f",), function=FUNCTION), "are for Callback.CALL"),
        (Ops(Callback.CALL, ("f",)), "needs a function"),
        (Ops(Callback.CALL, ("f",), flags=Flags.IPMODIFY, function=FUNCTION), "needs SAVE_REGS"),
        (Ops(Callback.CALL, flags=FULL, function=FUNCTION), "IPMODIFY needs a filter"),
        (Ops(Callback.CALL, ("f",), function=LEAVING), "has no guard"),
    ],
)
def test_what_does_not_go_together_is_refused(ops: Ops, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        refuse_flags(ops)


@pytest.mark.parametrize(
    "ops",
    [
        Ops(Callback.COUNT),
        Ops(Callback.CALL, function=FUNCTION),
        Ops(Callback.CALL, ("f",), flags=FULL, function=FUNCTION),
        Ops(Callback.CALL, ("f",), flags=Flags.RECURSION, function=LEAVING),
    ],
)
def test_what_goes_together_is_taken(ops: Ops) -> None:
    refuse_flags(ops)


def test_who_redirects_is_last_however_new() -> None:
    every = [
        redirecting(1, 5, flags=Flags.NONE),
        redirecting(9, 5),
        redirecting(4, 5, flags=Flags(0)),
    ]

    plan = make_plan(every, ALL)

    assert plan.sets[plan.wanted[5]] == (4, 1, 9)


def test_two_that_redirect_the_same_site_are_found_with_the_newer() -> None:
    older, newer = redirecting(2, 1, 3, 5), redirecting(7, 0, 3, 5)

    found = redirected_twice([newer, older], ALL)

    assert found is not None
    assert found[0] is newer
    assert found[1].tolist() == [3, 5]


def test_sites_apart_or_not_traceable_are_no_conflict() -> None:
    traceable = ALL.copy()
    traceable[3] = False

    assert redirected_twice([redirecting(1, 1, 3), redirecting(2, 2, 3)], traceable) is None
    assert redirected_twice([redirecting(1, 4), redirecting(2, 4, flags=Flags.NONE)], ALL) is None
