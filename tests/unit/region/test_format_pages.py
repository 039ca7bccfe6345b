"""The tables of docs/formats agree with the layout modules."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from fentry.dispatch.ops import Flags
from fentry.region import layout as region
from fentry.ring import layout as ring

DOCS = Path(__file__).resolve().parents[3] / "docs" / "formats"

TABLES: dict[tuple[str, str], np.dtype[np.void]] = {
    ("ring_buffer.md", "RingHeader"): ring.HEADER_DTYPE,
    ("ring_buffer.md", "CpuLine"): ring.CPU_LINE_DTYPE,
    ("ring_buffer.md", "TailLine"): ring.TAIL_LINE_DTYPE,
    ("ring_buffer.md", "Records"): ring.RECORD24,
    ("region.md", "Header"): region.HEADER_DTYPE,
    ("region.md", "Owner"): region.OWNER_DTYPE,
    ("region.md", "Segment"): region.SEGMENT_DTYPE,
    ("region.md", "Ops"): region.OPS_DTYPE,
    ("region.md", "Trampoline"): region.TRAMPOLINE_DTYPE,
    ("region.md", "Site"): region.SITE_DTYPE,
    ("region.md", "List"): region.LIST_DTYPE,
    ("region.md", "ThreadSet"): region.THREAD_SET_DTYPE,
    ("region.md", "Data"): region.DATA_DTYPE,
}


def rows_of_page(page: str, title: str) -> list[tuple[int, int, str]]:
    section = (DOCS / page).read_text().split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]
    return [
        (int(offset), int(size), name)
        for offset, size, name in re.findall(r"^\| (\d+) \| (\d+) \| `(\w+)` \|", section, re.M)
    ]


@pytest.mark.parametrize(("page", "title"), TABLES)
def test_page_has_every_field_of_the_layout(page: str, title: str) -> None:
    fields = TABLES[page, title].fields
    assert fields is not None
    expected = sorted((entry[1], entry[0].itemsize, name) for name, entry in fields.items())

    assert rows_of_page(page, title) == expected


def test_short_record_is_the_long_one_without_its_caller() -> None:
    assert rows_of_page("ring_buffer.md", "Records")[:3] == [
        (0, 8, "time"),
        (8, 4, "key"),
        (12, 4, "word"),
    ]
    assert ring.RECORD16.itemsize == 16


def test_page_has_the_offsets_of_the_tables() -> None:
    text = (DOCS / "region.md").read_text()

    assert re.findall(r"^\| (\d+) \| (?:254|1024|4096) ", text, re.M) == [
        str(region.SEGMENTS_OFFSET), str(region.OPS_OFFSET), str(region.TRAMPOLINES_OFFSET),
    ]  # fmt: skip
    assert f"| {region.SITES_OFFSET} | Sites |" in text
    assert f"| {region.COUNTER_BASES_OFFSET} | each CPU's counters" in text
    assert region.counter_bases_offset(2, 4) == region.COUNTER_BASES_OFFSET + 4 * 8 + 64
    assert f"at {region.OWNERS_OFFSET}, {region.OWNER_ROWS} Owners" in text
    assert f"| `owners_offset` | {region.OWNERS_OFFSET} |" in text
    assert f"# The registry, version {region.VERSION}\n" in text
    assert f"| `version` | {region.VERSION} |" in text
    assert f"| {region.THREAD_SETS_OFFSET} | two sets," in text
    assert f"| {region.THREAD_BYTES_OFFSET} | a byte for each tid |" in text
    assert f"segment of {region.THREAD_BYTES_OFFSET} + {region.MAX_TIDS} bytes" in text
    assert f"| flags` | {int(Flags.PID)}: it filters threads" in text.replace("| `", "| ")
    assert f"| {region.ROOMS_OFFSET} | rooms of {region.MAX_RINGS} rings" in text


def test_page_has_the_size_of_the_guard() -> None:
    text = (DOCS / "region.md").read_text()

    assert f"{region.GUARD_BUCKETS} buckets of {region.GUARD_SLOTS} slots of 16 bytes" in text
    assert region.GUARD_BYTES == 32768
