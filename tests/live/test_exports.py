"""Exports of what was recorded of a program: other tools count what the program itself counted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet  # noqa: F401  # loaded before it is an account that cannot read it
import pytest
from tests.support.cli import compile_c, fentry, folder_of
from tests.support.duckdb import query
from tests.support.trace_processor import trace_processor
from tests.support.unprivileged import Account

from fentry.formats import chrome, parquet, perfetto  # noqa: F401  # likewise

PROGRAM = r"""
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>
#define TRACED __attribute__((noipa, patchable_function_entry(5)))
static __thread long nr_deep, nr_flat;
TRACED long f_flat(long x) { nr_flat++; return x * 3 + 1; }
TRACED long f_deep(long x) { nr_deep++; return x ? f_flat(x) + f_deep(x - 1) : 0; }
static void *work(void *number)
{
    for (long i = 0; i < 100 * (1 + (long)number); i++)
        f_deep(i % 7);
    long tid = syscall(SYS_gettid);
    printf("%ld f_deep %ld\n%ld f_flat %ld\n", tid, nr_deep, tid, nr_flat);
    return NULL;
}
int main(void)
{
    pthread_t threads[3];
    for (long i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, work, (void *)i);
    for (long i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
}
"""

SLICES = """
    select tid, slice.name, count(*)
    from slice join thread_track on slice.track_id = thread_track.id join thread using (utid)
    group by 1, 2
"""
PARENTS = """
    select display_value, count(*) from slice join args using (arg_set_id)
    where key in ('debug.parent', 'args.parent') group by 1 order by 1
"""


@pytest.fixture
def folder(account: Account) -> Iterator[Path]:
    with folder_of(account) as path:
        yield path


def test_other_tools_count_the_calls_that_the_program_counted(
    account: Account, folder: Path
) -> None:
    program = compile_c(folder, PROGRAM, "-pthread")
    done = fentry(account, "record", "-F", "f_*", "-o", folder / "t", "--", program)
    assert done.code == 0 and " 0 dropped" in done.err, done.err
    lines = (line.split() for line in done.out.splitlines())
    counted = {(int(tid), function): int(calls) for tid, function, calls in lines}
    assert sum(counted.values()) == 4172 and len(counted) == 6

    for form in ("parquet", "perfetto", "chrome"):
        done = fentry(account, "export", form, "-i", folder / "t", "-o", folder / form)
        assert done.code == 0 and done.err.startswith("4172 of 4172 events to "), done.err

    rows = query("select tid, function, count(*) from calls group by all", folder / "parquet")
    assert {(tid, function): calls for tid, function, calls in rows} == counted
    assert query(
        "select parent, count(*) from calls group by all order by all", folder / "parquet"
    ) == [("f_deep", 3572), ("work", 600)]
    with trace_processor() as reader:
        for form in ("perfetto", "chrome"):
            slices, parents = reader.ask(folder / form, SLICES, PARENTS)
            assert {(tid, function): calls for tid, function, calls in slices} == counted
            assert parents == [["f_deep", 3572], ["work", 600]]
