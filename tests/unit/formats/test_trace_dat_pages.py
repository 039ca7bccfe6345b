"""Pages of the ring buffer, word by word."""

from __future__ import annotations

import io
import struct

import numpy as np

from fentry.events.columns import Events
from fentry.formats.trace_dat_pages import CpuPages, Missed


def events(*times: int) -> Events:
    count = len(times)
    return Events(
        time_ns=np.array(times, np.int64),
        cpu=np.zeros(count, np.uint16),
        tid=np.full(count, 77, np.uint32),
        ip=np.full(count, 0x401106, np.uint64),
        parent_ip=None,
        key=np.zeros(count, np.uint32),
    )


def written(*parts: Events, missed: list[Missed] | None = None) -> list[bytes]:
    """The pages of events that come in parts; their caller is 0x401146."""
    file = io.BytesIO()
    pages = CpuPages(file, missed or [])
    for part in parts:
        pages.add(part, np.full(len(part), 0x401146, np.uint64))
    pages.finish()
    whole = file.getvalue()
    assert len(whole) % 4096 == 0
    return [whole[start : start + 4096] for start in range(0, len(whole), 4096)]


CALL = struct.pack("<HBBiQQ", 1, 0, 0, 77, 0x401106, 0x401146)


def test_events_carry_the_time_since_the_one_before() -> None:
    (page,) = written(events(1000, 1005))
    data = struct.pack("<I", 6) + CALL + struct.pack("<I", 6 | 5 << 5) + CALL
    assert page == (struct.pack("<QQ", 1000, 56) + data).ljust(4096, b"\0")


def test_a_long_time_is_an_event_of_its_own() -> None:
    delta = (3 << 27) + 5
    (page,) = written(events(1000, 1000 + delta))
    extend = struct.pack("<II", 30 | 5 << 5, 3)
    data = struct.pack("<I", 6) + CALL + extend + struct.pack("<I", 6) + CALL
    assert page == (struct.pack("<QQ", 1000, 64) + data).ljust(4096, b"\0")


def test_a_page_holds_145_events_however_they_come() -> None:
    times = range(1000, 1300)
    whole = written(events(*times))
    assert [struct.unpack_from("<QQ", page) for page in whole] == [
        (1000, 145 * 28), (1145, 145 * 28), (1290, 10 * 28),
    ]  # fmt: skip
    assert written(*(events(time) for time in times)) == whole
    assert written(events(), events(*times[:145]), events(), events(*times[145:])) == whole


def test_lost_events_are_counted_behind_the_page_after_them() -> None:
    pages = written(
        events(1000, 1001, 1010), events(1011),
        missed=[Missed(1005, 7), Missed(1010, 2), Missed(2000, 1)],
    )  # fmt: skip
    first, second = pages
    assert struct.unpack_from("<QQ", first) == (1000, 56)
    assert struct.unpack_from("<QQ", second) == (1010, 56 | 3 << 30)
    assert struct.unpack_from("<Q", second, 16 + 56) == (9,)


def test_time_that_goes_back_begins_a_page() -> None:
    pages = written(events(1000, 900), events(901, 1 << 62))
    assert [struct.unpack_from("<QQ", page) for page in pages] == [
        (1000, 28), (900, 56), (1 << 62, 28),
    ]  # fmt: skip


def test_no_events_are_no_pages() -> None:
    assert written() == written(events()) == []
