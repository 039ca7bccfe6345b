"""Names of an untrusted file that unfold to far more than they are: they stay as they are."""

from __future__ import annotations

import mmap
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from tests.support.cli import fentry, folder_of
from tests.support.compiled import assemble
from tests.support.unprivileged import Account, accounts

from fentry.symbols import cxx
from fentry.symbols.demangle import base_name, demangle, demangle_all

# f(X, A<X, X>, A<A<X, X>, A<X, X> >, ...): each parameter twice the one before. 245 bytes; as
# c++filt prints it 54 million.
DOUBLING = (
    "_Z1f1X1AIS_S_ES0_IS1_S1_ES0_IS2_S2_ES0_IS3_S3_ES0_IS4_S4_ES0_IS5_S5_ES0_IS6_S6_ES0_IS7_S7_E"
    "S0_IS8_S8_ES0_IS9_S9_ES0_ISA_SA_ES0_ISB_SB_ES0_ISC_SC_ES0_ISD_SD_ES0_ISE_SE_ES0_ISF_SF_E"
    "S0_ISG_SG_ES0_ISH_SH_ES0_ISI_SI_ES0_ISJ_SJ_ES0_ISK_SK_ES0_ISL_SL_E"
)
# Eighteen more times: c++filt would need a week and a terabyte.
ENDLESS = DOUBLING + "".join(
    f"S0_IS{one}_S{one}_E" for one in (*"MNOPQRSTUVWXYZ", "10", "11", "12", "13")
)


@pytest.fixture(autouse=True)
def _no_names_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fentry.symbols.demangle._remembered.letters", 1 << 27)  # the next forgets


@pytest.mark.parametrize("name", [DOUBLING, ENDLESS])
def test_a_name_that_unfolds_without_end_stays_mangled(name: str) -> None:
    begin = time.process_time()
    assert demangle(name) == name
    assert time.process_time() - begin < 1.0
    assert demangle("_ZN3foo3barEi") == "foo::bar(int)"


def test_those_beside_it_are_read() -> None:
    names = ["_ZN1AC1Ev", ENDLESS, "main", "_ZN3foo3barEi", DOUBLING, "_ZN1AD2Ev"]
    assert list(demangle_all(names)) == [
        "A::A()", ENDLESS, "main", "foo::bar(int)", DOUBLING, "A::~A()",
    ]  # fmt: skip


def test_many_of_them_cost_no_more_than_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cxx, "_state", cxx._State())
    monkeypatch.setattr(cxx, "_MOST_LOST", 3)
    names = [ENDLESS.replace("1X", f"4X{i:03}") for i in range(500)] + ["_ZN3foo3barEi"]
    begin = time.monotonic()
    assert list(demangle_all(names)) == [*names[:-1], "foo::bar(int)"]
    assert cxx._state._lost == 3
    assert time.monotonic() - begin < 20.0


def test_the_longest_that_is_read() -> None:
    four = "_Z1fI" + "4long" * 4 + "EvS_"
    assert demangle(four) == "void f<long, long, long, long>(f)"
    # 92 letters to a parameter and two more, of a name of 3 + 100 + 2 * n + 1 bytes
    long = "1" * 90
    assert demangle(f"_Z1f92a{long}b" + "S_" * 20) == f"f(a{long}b" + f", a{long}b" * 20 + ")"
    too_long = f"_Z1f902{'a' * 902}" + "S_" * 600
    assert demangle(too_long) == too_long


def test_a_worker_that_somebody_kills_is_replaced() -> None:
    assert demangle("_ZN1AC1Ev") == "A::A()"
    assert cxx._state._worker is not None
    os.kill(cxx._state._worker._pid, signal.SIGKILL)
    await_state(cxx._state._worker._pid, "Z")
    assert list(demangle_all(["_ZN1AC2Ev", "_ZN1AD2Ev"])) == ["A::A()", "A::~A()"]
    assert demangle("_ZN3foo3barEi") == "foo::bar(int)"


def has_ended(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] in "ZX"


def await_state(pid: int, state: str) -> None:
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != state:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_worker_that_is_stopped_while_it_answers_goes_on_where_it_was() -> None:
    # Answers of more than a pipe holds: a write that waits for room is cut short by SIGCONT.
    names = [f"_Z2f{i}902{'a' * 902}{'S_' * 13}".encode() + b"\0" for i in range(10)]
    worker = cxx._Worker(cxx._reader())
    # ends a test that waits for ever
    limit = threading.Timer(60, os.kill, (worker._pid, signal.SIGKILL))
    limit.start()
    answers = worker.ask(names)
    found = [next(answers)]
    await_state(worker._pid, "S")
    os.kill(worker._pid, signal.SIGSTOP)
    await_state(worker._pid, "T")
    os.kill(worker._pid, signal.SIGCONT)
    found += answers
    limit.cancel()
    worker.close()
    assert [plain[:3].decode() for plain in found] == [f"f{i}(" for i in range(10)]
    assert {len(plain) for plain in found} == {12658}


def test_a_worker_keeps_no_memory_that_others_share(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = os.memfd_create("a-ring")
    os.ftruncate(ring, 4096)
    monkeypatch.setattr(cxx, "_state", cxx._State())
    with mmap.mmap(ring, 4096):
        os.close(ring)
        assert demangle("_ZN1AC1Eii") == "A::A(int, int)"
        assert cxx._state._worker is not None
        assert "a-ring" in Path("/proc/self/maps").read_text()
        assert "a-ring" not in Path(f"/proc/{cxx._state._worker._pid}/maps").read_text()
    cxx._state.end()


def test_ctrl_c_while_a_worker_is_forked_ends_no_code_of_its_parent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fork, parent, came_back = os.fork, os.getpid(), tmp_path / "came_back"

    def interrupted() -> int:
        pid = fork()
        if not pid:
            signal.raise_signal(signal.SIGINT)
        return pid

    monkeypatch.setattr(cxx, "_state", cxx._State())
    monkeypatch.setattr(os, "fork", interrupted)
    try:
        assert demangle("_ZN1AC1Eiii") == "A::A(int, int, int)"
    except BaseException:
        if os.getpid() != parent:
            came_back.touch()
            os._exit(0)
        raise
    finally:
        cxx._state.end()
    assert not came_back.exists()


def test_a_forked_process_has_its_own_worker_and_leaves_none() -> None:
    assert demangle("_ZN1AC1Ev") == "A::A()"
    assert cxx._state._worker is not None
    own = cxx._state._worker._pid

    def in_child() -> tuple[str, int]:
        names = demangle("_ZN3foo3bazEi")
        assert cxx._state._worker is not None
        return names, cxx._state._worker._pid

    for account in accounts():
        plain, other = account.run(in_child)
        assert plain == "foo::baz(int)"
        assert other != own
        deadline = time.monotonic() + 20
        while not has_ended(other):  # whoever adopts orphans may leave it a zombie for a while
            assert time.monotonic() < deadline
            time.sleep(0.001)
    assert demangle("_ZN3foo3quxEi") == "foo::qux(int)"


@pytest.mark.parametrize(
    "name",
    [
        "_RNvC" + "9" * 5000 + "a",
        "_RINvC1a1bKh" + "f" * 4500 + "_E",
        "_ZN" + "9" * 5000 + "17h0123456789abcdefE",
        "_RINvC1a1b" + "TB8_B8_" * 60 + "E" * 61,
    ],
)
def test_a_rust_name_with_numbers_of_thousands_of_digits_stays_mangled(name: str) -> None:
    assert demangle(name) == name


def test_brackets_within_brackets_end() -> None:
    assert base_name("<" * 5000 + ">" * 5000)
    assert base_name("<<<T as A>::X as B>::Y as C>::f::<u8>") == "T::X::Y::f"


def test_list_of_a_file_with_such_names(account: Account) -> None:
    source = "".join(
        f".type {name}, @function\n.globl {name}\n{name}:\n push %rbp\n mov %rsp, %rbp\n"
        f" pop %rbp\n ret\n.size {name}, . - {name}\n"
        for name in (ENDLESS, DOUBLING, "_ZN3foo3barEi")
    )
    with folder_of(account) as folder:
        path = assemble(folder, source)
        one, every = fentry(account, "list", path, "f*"), fentry(account, "list", path)
    assert one.out == "code.so!foo::bar(int)\n", one.err
    assert every.code == 0, every.err
    assert f"code.so!{DOUBLING}\n" in every.out and f"code.so!{ENDLESS}\n" in every.out
