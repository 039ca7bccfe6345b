"""Short words for live tests: what a session counted and recorded, by function name."""

from __future__ import annotations

from collections import Counter

import numpy as np

from fentry.cli.detach import restore
from fentry.cli.status import describe, text_of
from fentry.dispatch.ops import Callback, Ops
from fentry.process.target import Target
from fentry.session import Options, Session, attach

SMALL = Options(buffer_bytes=1 << 20)
PATIENT = Options(buffer_bytes=1 << 20, max_stop_s=10)  # with stops that last, under a killer


def recording(*wanted: str, notrace: tuple[str, ...] = ()) -> Ops:
    """Ops that record."""
    return Ops(Callback.RECORD, wanted, notrace)


def counting(*wanted: str, notrace: tuple[str, ...] = ()) -> Ops:
    """Ops that count."""
    return Ops(Callback.COUNT, wanted, notrace)


def names_of(session: Session, ips: list[int]) -> list[str]:
    """The name of the function that begins at each ip."""
    return [session.functions.symbols.resolve(ip)[0] for ip in ips]


def counted(session: Session, ops: Ops) -> Counter[str]:
    """Calls by function name, zeros left out."""
    ips, calls = session.counts(ops)
    return Counter(
        {
            name: count
            for name, count in zip(names_of(session, ips.tolist()), calls.tolist(), strict=True)
            if count
        }
    )


def recorded(session: Session, *, final: bool = False) -> Counter[str]:
    """Calls by function name of the records not read before."""
    by_key: Counter[int] = Counter()
    for batch in session.consume(final=final):
        keys, counts = np.unique(batch.records["key"], return_counts=True)
        by_key.update(dict(zip(keys.tolist(), counts.tolist(), strict=True)))
    keys, ips = session.keys()
    names = dict(zip(keys.tolist(), names_of(session, ips.tolist()), strict=True))
    by_name: Counter[str] = Counter()
    for key, count in by_key.items():
        by_name[names[key]] += count
    return by_name


def dropped(session: Session) -> int:
    """Calls that the full ring refused, of all CPUs."""
    stats = session.stats
    return int(stats.dropped_events.sum()) if stats is not None else 0


def detach_as_command(pid: int) -> str:
    """What `fentry detach -p PID` does and prints, without a new interpreter."""
    target = Target(pid)
    try:
        target.sweep()
        return restore(target)
    finally:
        target.close()


def status_as_command(pid: int) -> str:
    """What `fentry status -p PID` prints, without a new interpreter."""
    target = Target(pid)
    try:
        return text_of(describe(target, False))
    finally:
        target.close()


def full_cycle(pid: int) -> None:
    """Attach, trace, change filters, detach: what the kill test interrupts everywhere."""
    session = attach(pid, PATIENT)
    record = session.register(recording("f_*"))
    count = session.register(counting("f_*nop*", "f_*frame"))
    session.set_filter(record, ("f_*nop*",), ("f_*endbr*",))
    recorded(session)
    session.unregister(count)
    session.close()
