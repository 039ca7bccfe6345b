"""Cut and altered ELF files: every part is understood or refused, never anything else."""

from __future__ import annotations

import random
import struct
import subprocess
from pathlib import Path

import pytest
from tests.support.compiled import compile_c

from fentry.errors import BadInput
from fentry.sites.find import analyse
from fentry.symbols.elf import ElfImage

pytestmark = pytest.mark.exhaustive

SOURCE = """
#include <stdio.h>
static int pick(int x) {
    switch (x) { case 0: return 3; case 1: return puts("a"); case 2: return puts("b");
                 case 3: return 9; case 4: return puts("c"); case 5: return puts("d"); }
    return x * 7;
}
int (*table[])(int) = {pick};
int main(int argc, char **argv) { return table[0](argc); }
"""


@pytest.fixture(scope="module", params=["-pie", "-no-pie"])
def content(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    directory = tmp_path_factory.mktemp("damaged")
    pic = "-fPIE" if request.param == "-pie" else "-fno-pie"
    path = compile_c(directory, SOURCE, "-O2", pic, request.param, "-Wl,-z,noseparate-code")
    return path.read_bytes()


def examine(raw: bytes, memory_bias: int | None = None) -> bool:
    """Reads all there is of an image; whether it was understood."""
    try:
        image = ElfImage(raw, memory_bias=memory_bias)
        assert len(image.functions.names) == len(image.functions)
        found = analyse(image)
        assert len(found.sites) == len(image.functions)
        assert image.build_id == image.build_id.lower()
    except BadInput as error:
        assert str(error)
        return False
    return True


def test_a_file_cut_at_any_length_is_read_or_refused(content: bytes) -> None:
    lengths = [*range(0, 1200, 7), *range(1200, len(content), 97)]

    understood = [examine(content[:length]) for length in lengths]

    assert not any(understood[: 1200 // 7 // 2])
    assert examine(content)


def test_memory_that_holds_only_a_part_is_read_or_refused(content: bytes) -> None:
    for length in range(0, len(content), 211):
        examine(content[:length], 0x7F00_0000_0000)


def test_flipped_bytes_in_headers_and_tables_are_read_or_refused(content: bytes) -> None:
    chance = random.Random(20140)
    (shoff,) = struct.unpack_from("<Q", content, 40)
    for _ in range(250):
        raw = bytearray(content)
        for _ in range(chance.choice((1, 1, 1, 4))):
            place = chance.choice((chance.randrange(1200), chance.randrange(shoff, len(raw))))
            raw[place] = chance.choice((0, 0xFF, 0x80, chance.randrange(256)))
        examine(bytes(raw))


def test_flipped_bytes_anywhere_are_read_or_refused(content: bytes) -> None:
    chance = random.Random(5)
    for _ in range(200):
        raw = bytearray(content)
        for _ in range(24):
            raw[chance.randrange(64, len(raw))] = chance.randrange(256)
        examine(bytes(raw))


def test_every_program_header_field_may_be_extreme(content: bytes) -> None:
    phoff, phnum = (
        struct.unpack_from("<Q", content, 32)[0],
        struct.unpack_from("<H", content, 56)[0],
    )
    for number in range(phnum):
        for field in range(8, 56, 8):
            for value in (0, 1, 2**31, 2**47 - 1, 2**63, 2**64 - 1):
                raw = bytearray(content)
                struct.pack_into("<Q", raw, phoff + 56 * number + field, value)
                examine(bytes(raw))


def test_every_section_header_field_may_be_extreme(content: bytes) -> None:
    shoff, shnum = (
        struct.unpack_from("<Q", content, 40)[0],
        struct.unpack_from("<H", content, 60)[0],
    )
    for number in range(shnum):
        for field in (4, 8, 16, 24, 32, 40):
            for value in (0, 2**31 - 1, 2**64 - 1):
                raw = bytearray(content)
                end = 4 if field in (4, 40) else 8
                struct.pack_into(
                    "<I" if end == 4 else "<Q",
                    raw,
                    shoff + 64 * number + field,
                    value & (2 ** (8 * end) - 1),
                )
                examine(bytes(raw))


def test_every_dynamic_entry_may_be_extreme(content: bytes) -> None:
    image = ElfImage(content)
    segment = next(s for s in image.segments if s.type == 2)
    for place in range(segment.offset, segment.offset + segment.file_size, 16):
        for value in (0, 2**32, 2**63, 2**64 - 1):
            raw = bytearray(content)
            struct.pack_into("<Q", raw, 40, 0)  # no sections: PT_DYNAMIC is all there is
            struct.pack_into("<Q", raw, place + 8, value)
            examine(bytes(raw))


def test_a_separate_debug_file_has_no_code_and_no_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "whole").write_bytes(content)
    subprocess.run(
        ["objcopy", "--only-keep-debug", str(tmp_path / "whole"), str(tmp_path / "debug")],
        check=True,
    )

    examine((tmp_path / "debug").read_bytes())


def test_the_error_names_the_offset(content: bytes) -> None:
    with pytest.raises(BadInput, match=r"damaged program headers at offset 0x40"):
        ElfImage(content[:100])
