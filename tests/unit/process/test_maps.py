"""Lines of /proc/PID/maps, and where there is room between the mappings."""

from __future__ import annotations

import mmap
import os

import pytest

from fentry.errors import BadInput, RegionError, TargetGone
from fentry.process.maps import find_gap, gaps, mapping_at, parse_maps, read_maps

MIB = 1 << 20
GIB = 1 << 30


def line(start: int, end: int, path: str = "", perms: str = "r-xp") -> str:
    return f"{start:x}-{end:x} {perms} 00000000 00:00 0 {path}\n"


def test_a_line_is_split_into_its_fields() -> None:
    (found,) = parse_maps(
        "7f5c8a200000-7f5c8a228000 r--p 00026000 fe:01 1835017            /usr/lib/libc.so.6\n"
    )

    assert (found.start, found.end, found.perms) == (0x7F5C8A200000, 0x7F5C8A228000, "r--p")
    assert (found.offset, found.device, found.inode) == (0x26000, "fe:01", 1835017)
    assert (found.path, found.size) == ("/usr/lib/libc.so.6", 0x28000)
    assert not found.executable and not found.writable and not found.shared


@pytest.mark.parametrize(
    ("printed", "path"),
    [
        ("/opt/my program/a  b.so", "/opt/my program/a  b.so"),
        (r"/tmp/two\012lines", "/tmp/two\nlines"),
        (r"/tmp/back\slash", "/tmp/back\\slash"),
        ("/tmp/gone (deleted)", "/tmp/gone (deleted)"),
        ("[stack]", "[stack]"),
        ("", ""),
    ],
)
def test_a_path_is_kept_as_the_kernel_means_it(printed: str, path: str) -> None:
    (found,) = parse_maps(f"1000-2000 rw-s 00000000 00:01 7 {printed}\n")

    assert found.path == path
    assert found.shared and found.writable


def test_a_deleted_file_is_known_by_its_suffix() -> None:
    (found,) = parse_maps("1000-2000 r-xp 00000000 08:01 7   /usr/bin/x y (deleted)\n")

    assert found.is_deleted
    assert found.path_undeleted == "/usr/bin/x y"


def test_a_path_that_is_not_utf8_survives_the_round_trip() -> None:
    (found,) = parse_maps(b"1000-2000 r-xp 00000000 08:01 7   /tmp/\xff\xfe\n")

    assert os.fsencode(found.path) == b"/tmp/\xff\xfe"


def test_a_line_of_another_form_is_refused() -> None:
    with pytest.raises(BadInput, match="rubbish"):
        parse_maps("1000-2000 r-xp 00000000 08:01 7\nrubbish\n")


def test_the_real_file_agrees_with_a_mapping_just_made() -> None:
    path = f"/tmp/fentry maps {os.getpid()}\n"
    with open(path, "w+b") as file:
        os.unlink(path)
        file.truncate(8192)
        with mmap.mmap(file.fileno(), 8192):
            (found,) = [m for m in read_maps(os.getpid()) if m.path_undeleted == path]
            assert found.is_deleted
            assert (found.size, found.inode) == (8192, os.fstat(file.fileno()).st_ino)


def test_a_process_that_does_not_exist_is_gone() -> None:
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)

    with pytest.raises(TargetGone):
        read_maps(child)


def test_mapping_at_finds_the_one_that_holds_an_address() -> None:
    maps = parse_maps(line(0x1000, 0x3000, "/a") + line(0x5000, 0x6000, "/b"))

    assert [getattr(mapping_at(maps, a), "path", None) for a in (0xFFF, 0x1000, 0x2FFF)] == [
        None,
        "/a",
        "/a",
    ]
    assert mapping_at(maps, 0x3000) is None
    assert mapping_at(maps, 0x5800) == maps[1]


def test_gaps_are_what_lies_between_mappings_and_large_enough() -> None:
    maps = parse_maps(line(0x1000, 0x3000) + line(0x5000, 0x6000) + line(0x7000, 0x8000))

    assert gaps(maps, 0, 0xA000, 0x1000) == [
        (0, 0x1000),
        (0x3000, 0x5000),
        (0x6000, 0x7000),
        (0x8000, 0xA000),
    ]
    assert gaps(maps, 0, 0xA000, 0x2000) == [(0x3000, 0x5000), (0x8000, 0xA000)]


PIE = 0x5555_5555_4000
PIE_MAPS = (
    line(PIE, PIE + 0x100000, "/usr/bin/program")
    + line(PIE + 0x101000, PIE + 0x122000, "[heap]", "rw-p")
    + line(0x7FFF_F7C0_0000, 0x7FFF_F7E0_0000, "/usr/lib/libc.so.6")
    + line(0x7FFF_FFFD_E000, 0x7FFF_FFFF_F000, "[stack]", "rw-p")
)


def test_a_gap_lies_right_below_the_code_where_there_is_room() -> None:
    maps = parse_maps(PIE_MAPS)

    assert find_gap(maps, 5000, PIE, PIE + 0x100000) == PIE - 0x2000
    assert find_gap(maps, 4096, PIE, PIE + 0x100000) == PIE - 0x1000
    assert find_gap(maps, MIB, 0x7FFF_F7C0_0000, 0x7FFF_F7E0_0000) == 0x7FFF_F7C0_0000 - MIB


def test_every_byte_reaches_every_byte_of_the_span() -> None:
    taken = PIE - GIB  # only addresses more than 1 GiB below are free on this side
    maps = parse_maps(line(taken, PIE + 0x100000) + line(PIE + 0x100000, PIE + 3 * GIB))

    address = find_gap(maps, MIB, PIE, PIE + 0x100000)

    assert address == taken - MIB
    with pytest.raises(RegionError, match="no room"):
        find_gap(maps, GIB + MIB, PIE, PIE + 0x100000)


def test_a_fixed_program_near_zero_gets_room_away_from_its_heap() -> None:
    heap_end = 0x0180_0000
    maps = parse_maps(
        line(0x40_0000, 0xA0_0000, "/usr/bin/python3")
        + line(0x100_0000, heap_end, "[heap]", "rw-p")
    )

    assert find_gap(maps, 16 * MIB, 0x40_0000, 0xA0_0000) == heap_end + 64 * MIB
    assert find_gap(maps, 2 * MIB, 0x40_0000, 0xA0_0000) == 0x20_0000


def test_room_of_a_heap_that_does_not_exist_yet_is_left_alone() -> None:
    maps = parse_maps(line(0x40_0000, 0xA0_0000, "/usr/bin/python3"))

    assert find_gap(maps, 16 * MIB, 0x40_0000, 0xA0_0000, brk=0xA0_0000) == 0xA0_0000 + 64 * MIB


def test_room_below_the_stack_is_left_alone() -> None:
    maps = parse_maps(PIE_MAPS + line(0x7FFF_77C0_0000, 0x7FFF_F7C0_0000))

    low, high = 0x7FFF_F7C0_0000, 0x7FFF_F7E0_0000
    found = find_gap(sorted(maps, key=lambda m: m.start), 4096, low, high)

    assert found <= 0x7FFF_FFFD_E000 - 128 * MIB or found < 0x7FFF_77C0_0000


def test_margins_are_given_up_before_the_search_is() -> None:
    heap_end = 0x180_0000
    maps = parse_maps(
        line(0x1_0000, 0xA0_0000, "/usr/bin/python3")
        + line(0x100_0000, heap_end, "[heap]", "rw-p")
        + line(heap_end + 32 * MIB, 0x40_0000 + 3 * GIB)
    )

    assert find_gap(maps, 16 * MIB, 0x1_0000, 0xA0_0000) == heap_end + 8 * MIB
    assert find_gap(maps, 30 * MIB, 0x1_0000, 0xA0_0000) == heap_end


def test_equal_maps_give_equal_answers() -> None:
    maps = parse_maps(PIE_MAPS)

    assert len({find_gap(maps, 7 * MIB, PIE, PIE + 0x100000) for _ in range(3)}) == 1
