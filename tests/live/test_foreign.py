"""Other tools in the same text: what they changed is neither traced nor restored by us."""

from __future__ import annotations

import pytest
from tests.support import tracing
from tests.support.build import build
from tests.support.process import start
from tests.support.state import diff, snapshot
from tests.support.unprivileged import Account

from fentry.errors import RegionError, SymbolNotFound
from fentry.process.target import Target
from fentry.session import attach


def test_function_with_a_foreign_breakpoint_is_refused(account: Account) -> None:
    with start(build("hot.c"), account=account, hold=True) as target:

        def controller() -> tuple[bytes, bytes]:
            ours = Target(target.pid)
            with attach(target.pid) as session:
                ip = int(session.functions.symbols.match("f_plain")[0])
                ours.memory.write(ip, b"\xcc")  # the gate is closed: nobody executes it
                with pytest.raises(SymbolNotFound, match="can be traced") as caught:
                    session.register(tracing.counting("f_plain"))
                assert "another tool changed it" in caught.value.cause
                session.register(tracing.counting("f_*"))
            left = ours.memory.read(ip, 5)
            ours.memory.write(ip, b"\x55")
            return left, ours.memory.read(ip, 5)

        left, restored = account.run(controller)
        target.go()
        target.await_calls("f_plain")
        assert target.stop().is_well
    assert left == bytes.fromhex("cc 48 89 e5 5d")
    assert restored == bytes.fromhex("55 48 89 e5 5d")  # push rbp; mov rbp, rsp; pop rbp


def test_site_with_a_later_breakpoint_is_left_alone_and_its_code_stays(account: Account) -> None:
    """Whoever set it writes back what was there: our branch, which must lead somewhere."""
    with start(build("hot.c"), account=account, hold=True) as target:
        before = snapshot(target.pid)

        def controller() -> tuple[str, bytes, str]:
            ours = Target(target.pid)
            session = attach(target.pid)
            session.register(tracing.counting("f_plain", "f_lea"))
            ip = int(session.functions.symbols.match("f_plain")[0])
            call = ours.memory.read(ip, 5)
            ours.memory.write(ip, b"\xcc" + call[1:])
            with pytest.raises(RegionError) as caught:
                tracing.detach_as_command(target.pid)
            left = ours.memory.read(ip, 5)
            ours.memory.write(ip, call)
            target.go()
            target.await_calls("f_plain", 100)
            target.hold()
            return str(caught.value), left, tracing.detach_as_command(target.pid)

        refused, left, said = account.run(controller)
        found = diff(before, snapshot(target.pid))
        target.go()
        target.await_calls("f_plain")
        assert target.stop().is_well
    assert "1 sites restored; 1 left alone" in refused
    assert "a breakpoint of somebody else" in refused
    assert left[0] == 0xCC
    assert "1 sites restored" in said
    assert found == []
