"""The screen of stat --top at any size."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fentry.formats.top_screen import PLAIN_BLOCKS, TopRow, TopState, columns_of, screen, spark

ROWS = (
    TopRow(1234567.4, 0.75, 98765432, (0.0, 1.0, 50.0, 100.0), "malloc", "libc.so.6"),
    TopRow(4.25, 0.25, 17, (), "std::vector<int>::push_back(int const&)", "/usr/bin/demo"),
)
STATE = TopState(
    pid=4321, command="demo --fast", seconds=3725.9, interval_s=1.0, per_second=1646090.0,
    total=98765449, traced=694, refused=440, by="CALLS/S", rows=ROWS,
)  # fmt: skip


def test_a_wide_screen_has_everything() -> None:
    assert screen(STATE, 80, 8) == [
        "fentry top  1:02:05  694 functions counted, 440 refused  4321 demo --fast",
        "1646090 calls/s  98765449 calls  every 1 s",
        "   CALLS/S   SHARE         TOTAL       HISTORY  FUNCTION               MODULE",
        "   1234567   75.0%      98765432           ▁▄█  malloc                 libc.so.6",
        "       4.2   25.0%            17                std::vecto~nt const&)  demo",
        "",
        "",
        "q quits   r by rate   t by total   now by CALLS/S",
    ]


def test_a_narrow_screen_leaves_out_what_matters_least() -> None:
    def head(width: int) -> str:
        return screen(STATE, width, 8)[2]

    assert head(79).split() == ["CALLS/S", "SHARE", "TOTAL", "FUNCTION", "MODULE"]
    assert head(63).split() == ["CALLS/S", "SHARE", "TOTAL", "FUNCTION"]
    assert head(45).split() == ["CALLS/S", "SHARE", "FUNCTION"]
    assert head(31).split() == ["CALLS/S", "FUNCTION"]
    assert screen(STATE, 46, 8)[4] == "       4.2   25.0%            17  std::~onst&)"


@pytest.mark.parametrize("width", [1, 2, 11, 31, 32, 45, 46, 63, 64, 79, 80, 300])
@pytest.mark.parametrize("height", [1, 2, 3, 4, 5, 6, 24])
def test_no_screen_is_larger_than_the_terminal(width: int, height: int) -> None:
    lines = screen(STATE, width, height)
    assert len(lines) == height
    assert max(map(columns_of, lines)) <= width


def test_what_a_target_calls_itself_does_not_move_the_terminal() -> None:
    row = replace(ROWS[0], function="a\x1b[2Jb\x9bc\nd", module="/lib/x\x07y")
    state = replace(STATE, command="demo\x1b]0;x\x07", rows=(row,))
    text = "\n".join(screen(state, 100, 6))
    assert "a?[2Jb?c?d" in text and "x?y" in text and "demo?]0;x?" in text
    assert not {char for char in text if ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0} - {"\n"}


def test_wide_and_combining_characters_count_as_a_terminal_counts_them() -> None:
    assert columns_of("関数") == 4
    assert columns_of("e\u0301") == 1
    row = replace(ROWS[0], function="関" * 60)
    lines = screen(replace(STATE, rows=(row,)), 90, 6)
    assert columns_of(lines[3]) <= 90
    assert lines[3].endswith("関   libc.so.6")


def test_history_is_scaled_to_its_greatest_value_and_shows_all_above_zero() -> None:
    assert spark((0.0, 0.001, 4.0, 8.0)) == "         ▁▄█"[-12:]
    assert spark((0.0, 8.0, 1.0), PLAIN_BLOCKS) == "          @."
    assert spark(tuple(float(n) for n in range(100)))[-1] == "█"
    assert spark(()) == " " * 12
