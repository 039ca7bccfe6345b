"""Hard case: indirect functions are traced by their own name, and their resolvers by another."""

from __future__ import annotations

import json
import subprocess
from collections import Counter

import pytest
from tests.support import tracing
from tests.support.build import build
from tests.support.machine import need_tool
from tests.support.process import start
from tests.support.unprivileged import Account

from fentry.process.target import Target
from fentry.session import attach
from fentry.sites.functions import Functions

PYTHON = """
import ctypes, json, sys
library = ctypes.CDLL(None)
names = ["memcpy", "memmove", "strlen", "memset", "strchr", "strcmp", "memchr"]
print(json.dumps({n: ctypes.cast(getattr(library, n), ctypes.c_void_p).value for n in names}))
sys.stdout.flush()
sys.stdin.read()
"""


@pytest.mark.parametrize("flags", [(), ("-no-pie",), ("-static",)], ids=["pie", "no-pie", "static"])
def test_indirect_functions_are_counted_by_name(account: Account, flags: tuple[str, ...]) -> None:
    with start(build("ifuncs.c", flags=flags), account=account, hold=True) as target:

        def controller() -> tuple[Counter[str], Counter[str]]:
            with attach(target.pid) as session:
                own = session.register(tracing.counting("f_chosen"))
                library = session.register(tracing.counting("strspn"))
                target.go()
                target.await_calls("f_chosen", 5000)
                held = target.hold()
                calls = Counter(f_chosen=tracing.counted(session, own).total())
                calls["strspn"] = tracing.counted(session, library).total()
                return calls, Counter({name: held[name] for name in calls})

        calls, held = account.run(controller)
        target.go()
        end = target.stop()
    assert calls == held
    assert end.is_well, end.err


def test_names_lead_to_the_code_that_the_dynamic_linker_chose() -> None:
    # dlsym(3) says what it is
    command = [need_tool("python3"), "-c", PYTHON]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdin is not None
        expected = json.loads(process.stdout.readline())
        target = Target(process.pid)
        try:
            functions = Functions(process.pid, target)
        finally:
            target.close()
            process.stdin.close()
    for name, ip in expected.items():
        assert ip in functions.symbols.match(f"libc!{name}").tolist()
        resolvers = functions.symbols.match(f"libc!{name}.resolver").tolist()
        assert ip not in resolvers and resolvers


def test_what_nobody_has_asked_for_yet_is_known_by_its_resolver_alone() -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([need_tool("cat")], stdin=pipe, stdout=pipe) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"loaded\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"loaded\n"
        target = Target(process.pid)
        try:
            functions = Functions(process.pid, target)
            assert len(functions.symbols.match("wcsncmp")) == 0
            assert len(functions.symbols.match("wcsncmp.resolver")) == 1
            assert "wcsncmp.resolver" in functions.symbols.near("wcsncmp")
        finally:
            target.close()
            process.stdin.close()
