"""A threaded program recorded and exported: every call is in what other tools read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.cli import compile_c, fentry, folder_of
from tests.support.trace_readers import calls_by_uftrace, shown_by_trace_cmd, uftrace
from tests.support.unprivileged import Account

PROGRAM = """
#include <pthread.h>
__attribute__((noinline)) void f_leaf(void) { __asm__ volatile("nop; nop; nop; nop; nop"); }
__attribute__((noinline)) void f_middle(void) { f_leaf(); __asm__ volatile(""); }
static void *f_thread(void *unused)
{
    for (int i = 0; i < 2000; i++)
        f_middle();
    return unused;
}
int main(void)
{
    pthread_t threads[3];
    for (int i = 0; i < 3; i++)
        pthread_create(&threads[i], 0, f_thread, 0);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], 0);
}
"""
CALLS = {"f_leaf": 6000, "f_middle": 6000, "f_thread": 3}


@pytest.fixture
def trace(account: Account) -> Iterator[Path]:
    with folder_of(account) as folder:
        program = compile_c(folder, PROGRAM, "-pthread")
        words = "-F", "f_*", "-o", folder / "t.fentry", "--", program
        done = fentry(account, "record", *words)
        assert done.code == 0, done.err
        assert "12003 events, 0 dropped" in done.err
        yield folder / "t.fentry"


def test_other_tools_read_what_was_recorded(account: Account, trace: Path) -> None:
    for form, suffix in (("trace.dat", ".dat"), ("uftrace", ".uftrace")):
        done = fentry(account, "export", form, "-i", trace)
        assert done.code == 0, done.err
        assert done.err.startswith(f"12003 of 12003 events to {trace.with_suffix(suffix)} (")
        owner = trace.with_suffix(suffix).stat().st_uid
        assert owner == account.uid

    rows = fentry(account, "report", "-i", trace, "--json").out.splitlines()
    recorded = [json.loads(row) for row in rows]
    shown = shown_by_trace_cmd(trace.with_suffix(".dat"))
    assert Counter(call.function for call in shown) == CALLS
    assert sorted((c.time_ns, c.tid, c.cpu, c.function, c.comm) for c in shown) == sorted(
        (r["time_ns"], r["tid"], r["cpu"], r["function"], r["comm"]) for r in recorded
    )
    assert {(call.function, call.parent) for call in shown if call.function != "f_thread"} == {
        ("f_leaf", "f_middle"),
        ("f_middle", "f_thread"),
    }

    folder = trace.with_suffix(".uftrace")
    assert calls_by_uftrace(folder) == CALLS
    tasks = [line.split() for line in uftrace("report", folder, "--task")[2:]]
    assert sorted(tasks) == sorted([str(row["tid"]), "4001", "program"] for row in recorded
                                   if row["function"] == "f_thread")  # fmt: skip
