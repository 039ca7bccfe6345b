"""The sites of an image: every function has one, or a reason why not.

Pure: bytes and tables in, rows out; nothing is read from a process. The rule throughout is to
refuse rather than guess: a function is offered only if no way is known or possible by which
something other than its first instruction enters the bytes to be replaced.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property

import numpy as np
from iced_x86 import Decoder, FlowControl, Instruction, Mnemonic, OpKind, Register
from numpy.typing import NDArray

from fentry.sites.branches import Branches, Candidates
from fentry.sites.carriers import Carrier, Carriers, eligible
from fentry.sites.holes import Holes
from fentry.sites.jumps import JumpCheck
from fentry.sites.nop import ENDBR64, is_nop_site
from fentry.sites.pad import PART_ROOM_BYTES
from fentry.sites.prologue import LONGEST_WINDOW, Window, prologue_window
from fentry.sites.site import (
    ORIGINAL_BYTES,
    PAGE_SIZE,
    PATCH_SIZE,
    SHORT_SIZE,
    SITE_DTYPE,
    ModuleSites,
    Reason,
    SiteKind,
)
from fentry.symbols.elf import ElfImage
from fentry.symbols.functions import FunctionKind
from fentry.symbols.go import go_code
from fentry.symbols.patterns import COLD
from fentry.x86 import relocate

_ENTRY_BYTES = len(ENDBR64) + LONGEST_WINDOW + 15
# mov rax or eax, 15 (rt_sigreturn); syscall: glibc and musl; unwinders know these bytes
# (libgcc's linux-unwind.h).
_RESTORERS = (bytes.fromhex("48c7c00f0000000f05"), bytes.fromhex("b80f0000000f05"))
_PLT_STARTS = (bytes.fromhex("ff25"), bytes.fromhex("f2ff25"), bytes.fromhex("ff35"))
_JUMPS = frozenset((FlowControl.CONDITIONAL_BRANCH, FlowControl.UNCONDITIONAL_BRANCH))
# What gcc and clang align functions to at -O2, and never parts of them.
_FUNCTION_ALIGNMENT = 16
# What two bytes instead of five may do away with.
_SHORTENED = (Reason.BRANCH, Reason.POINTER, Reason.TOO_SHORT, Reason.PAGE)
# And in a part, whose pad has less room.
_SHORTENED_PARTS = (Reason.NOT_MOVABLE, Reason.CALL)
# A place within 2 GiB of all of that, with room to spare.
_FARTHEST_CODE_BYTES = 7 << 28
_CALL = 0xE8
_LEA = 0x8D


def analyse(image: ElfImage) -> ModuleSites:
    """A row for every function of an image, and what is in the way of those refused.

    Raises BadInput if the image is damaged.
    """
    search = _Search(image)
    search.read_entries()
    search.refuse_kinds()
    search.refuse_places()
    search.refuse_pointed_at()
    search.refuse_loops()
    search.refuse_branched_into()
    search.shorten()
    search.refuse_tails()
    search.carry()
    search.refuse_far()
    search.refuse_computed_jumps()
    return search.result()


class _Search:
    """The rows while they are worked out: each step can only refuse further ones."""

    def __init__(self, image: ElfImage) -> None:
        self.image = image
        self.functions = image.functions
        self.branches = Branches(image)
        self.rows = np.zeros(len(self.functions), SITE_DTYPE)
        self.rows["entry"] = self.functions.rows["vaddr"]
        self.rows["size"] = np.minimum(self.functions.rows["size"], 2**32 - 1)
        self.parts = np.zeros(len(self.functions), bool)  # no functions but parts of others
        self.blockers: dict[int, int] = {}
        self.short: dict[int, Window] = {}  # rows that two bytes of would be enough for

    # -- what stands at the entry --------------------------------------------------------------

    def read_entries(self) -> None:
        """Fills kind, patch, window, original, and refuses what the first bytes forbid."""
        entries = self.rows["entry"].tolist()
        sizes = self.functions.rows["size"].tolist()
        kinds, windows, reasons, skips = [], [], [], []
        for entry, size, code in zip(
            entries, sizes, self._bytes_at(entries, _ENTRY_BYTES), strict=True
        ):
            skip = len(ENDBR64) if code.startswith(ENDBR64) else 0
            body = code[skip:]
            if not body:
                found = Window(SiteKind.REFUSED, 0, Reason.NO_BYTES)
            elif is_nop_site(body):
                found = Window(SiteKind.NOP, PATCH_SIZE, Reason.NONE)
            else:
                found = prologue_window(body, entry + skip, size - skip)
            kinds.append(found.kind)
            windows.append(found.size)
            reasons.append(found.reason)
            skips.append(skip)
        self.rows["kind"], self.rows["window"], self.rows["reason"] = kinds, windows, reasons
        self.rows["patch"] = self.rows["entry"] + np.array(skips, np.uint64)
        originals = self._bytes_at(self.rows["patch"].tolist(), ORIGINAL_BYTES)
        whole = b"".join(code.ljust(ORIGINAL_BYTES, b"\0") for code in originals)
        self.rows["original"] = np.frombuffer(whole, "V16")

    def refuse_kinds(self) -> None:
        """Refuses what is not a function that calls enter, whatever its bytes are."""
        frames = self.image.frames
        at = np.searchsorted(frames["start"], self.rows["entry"])
        at = at.clip(max=max(0, len(frames) - 1))
        inside, signal = np.zeros((2, len(self.rows)), bool)
        if len(frames):
            same = frames["start"][at] == self.rows["entry"]
            inside, signal = same & frames["inside"][at], same & frames["signal"][at]
        names = self.functions.names
        restorers, stubs = signal | self._restorers(), self._stubs()
        start = self.rows["entry"] == self.image.entry
        start |= np.array([name == "_start" for name in names], bool)
        self.parts = inside | np.array([bool(COLD.search(name)) for name in names], bool)
        self.parts &= ~(restorers | start | stubs)
        self.refuse(restorers, Reason.RESTORER, always=True)
        self.refuse(start, Reason.START, always=True)
        self.refuse(stubs, Reason.PLT, always=True)
        for code in go_code(self.image):
            entry = self.rows["entry"]
            self.refuse((entry >= code.start) & (entry < code.stop), Reason.GO, always=True)
        self.refuse_wide_parts()

    def refuse_wide_parts(self) -> None:
        """Refuses parts whose moved instructions do not fit into the pad of a part."""
        moved = self.parts & (self.rows["kind"] != SiteKind.NOP) & self._accepted()
        for row in np.flatnonzero(moved).tolist():
            site = self.rows[row]
            code = site["original"].tobytes()[: int(site["window"])]
            if relocate.moved_bytes(relocate.decode(code, int(site["patch"]))) > PART_ROOM_BYTES:
                site["reason"] = Reason.NOT_MOVABLE

    def refuse_places(self) -> None:
        """Refuses windows of unknown end, with another function in them, or in two pages."""
        known = self.functions.rows["size_known"]
        nop = self.rows["kind"] == SiteKind.NOP
        skipped = self.rows["patch"] - self.rows["entry"]
        short = nop & known & (self.functions.rows["size"] < skipped + PATCH_SIZE)
        self.refuse(short, Reason.TOO_SHORT)
        self.refuse(~known & ~nop, Reason.SIZE_UNKNOWN)
        after = np.append(self.rows["entry"][1:], np.uint64(2**64 - 1))
        padded = ~nop & (self.rows["window"] < PATCH_SIZE)
        self.refuse(padded & (self.rows["patch"] + np.uint64(PATCH_SIZE) > after), Reason.TOO_SHORT)
        self.refuse(self.rows["patch"] % PAGE_SIZE + PATCH_SIZE > PAGE_SIZE, Reason.PAGE)
        patches, ends = self.rows["patch"], self.rows["patch"] + self.rows["window"]
        for sequence in self.image.restartable:
            inside = (patches < np.uint64(sequence.stop)) & (ends > np.uint64(sequence.start))
            self.refuse(inside, Reason.RESTARTABLE, always=True)

    # -- who else enters the window ------------------------------------------------------------

    def refuse_pointed_at(self) -> None:
        """Refuses windows into which a symbol, a frame or a pointer in the data points, or where
        the unwinder may enter."""
        if self.image.landing_pads.unknown:
            self.refuse(self.parts, Reason.POINTER)
        self._block(self._named_in(self._interior()), Reason.POINTER)

    def _named_in(self, marked: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
        """(what names it, address) of addresses marked in a Branches.blank()."""
        named = (
            self.functions.rows["vaddr"],
            self.functions.labels,
            self.image.frames["start"],
            self.image.code_pointers,
            self.image.landing_pads.vaddrs,
        )
        low, high = self.branches.low, self.branches.high
        for addresses in named:
            inside = addresses[(addresses >= low) & (addresses < high)]
            hit = inside[marked[(inside - np.uint64(low)).astype(np.int64)]]
            yield from ((int(address), int(address)) for address in hit)
        yield from self.branches.words_naming(marked)

    def refuse_loops(self) -> None:
        """Refuses functions that jump back to their first instruction, also from a cold part.

        Each round would count as a call, and might keep data below the stack pointer. A loop
        within the window is moved with it. The first instruction of a part is a place like any
        other in its function: whatever jumps there enters it.
        """
        wanted = self.branches.blank()
        rows = np.flatnonzero(self._accepted())
        for name in ("entry", "patch"):
            wanted[(self.rows[name][rows] - np.uint64(self.branches.low)).astype(np.int64)] = True
        found = self.branches.candidates_into(wanted)
        jumps = ~np.isin(found.opcode, (_CALL, _LEA))
        source, target = found.source[jumps], found.target[jumps]
        number = np.searchsorted(self.rows["entry"], target.astype(np.uint64), side="right") - 1
        row = self.rows[number]
        ends = row["entry"] + np.maximum(self.functions.rows["size"][number], 1)
        near = (source >= row["entry"].astype(np.int64)) & (source < ends.astype(np.int64))
        moved = (row["patch"] + row["window"]).astype(np.int64)
        near &= source >= moved
        home = np.searchsorted(self.rows["entry"], source.astype(np.uint64), side="right") - 1
        cold = (home >= 0) & self.parts[home]
        chosen = np.flatnonzero((near | cold) & ~self.parts[number])
        check = JumpCheck(self.image, self.branches, self.branches.blank(), self._parts())
        kept = Candidates(source[chosen], found.opcode[jumps][chosen], target[chosen])
        for at, to in self.branches.confirmed(kept):
            looped = int(np.searchsorted(self.rows["entry"], np.uint64(to), side="right")) - 1
            if not self.rows["reason"][looped] and self._is_within(at, looped, check):
                self.rows["reason"][looped] = Reason.LOOP
                self.blockers[int(self.rows["entry"][looped])] = at

    def _is_within(self, vaddr: int, row: int, check: JumpCheck) -> bool:
        # Whether an address belongs to function number `row`: lies in it, or in a cold part that
        # it branches to (a cold part may as well end in a tail call of another function).
        home = self.functions.containing(vaddr)
        if home == row or home < 0:
            return True
        part, flow = self.functions.rows[home], self.branches.flow(row)
        low, high = int(part["vaddr"]), int(part["vaddr"]) + int(part["size"])
        reached = any(low <= target < high for target in flow.targets)
        return reached or not flow.trusted or check.has_tables(row)

    def refuse_branched_into(self) -> None:
        """Refuses windows into which any instruction of the image branches."""
        candidates = self.branches.candidates_into(self._interior())
        self._block(self.branches.confirmed(candidates), Reason.BRANCH)

    def shorten(self) -> None:
        """Gives those refused for what enters their windows one of two bytes, where it can.

        It is a short jump to a hole nearby, in padding, in which the long one is. What goes on
        behind the two bytes runs as before.
        """
        reasons = self.rows["reason"]
        chosen = np.isin(reasons, _SHORTENED)
        chosen |= self.parts & np.isin(reasons, _SHORTENED_PARTS)
        ends = self.rows["entry"] + self.functions.rows["size"]
        after = np.append(self.rows["entry"][1:], np.uint64(2**64 - 1))
        chosen &= np.minimum(ends, after) >= self.rows["patch"] + np.uint64(SHORT_SIZE)
        chosen &= self.rows["patch"] % PAGE_SIZE + SHORT_SIZE <= PAGE_SIZE
        rows = np.flatnonzero(chosen & (self.rows["kind"] != SiteKind.NOP))
        windows = {row: self._short_window(row) for row in rows.tolist()}
        self.short = {row: w for row, w in windows.items() if w.kind != SiteKind.REFUSED}
        holes = self._unreached_holes(np.array(sorted(self.short), np.int64))
        self._accept_short({row: (hole, hole, 0) for row, hole in holes.items()})

    def carry(self) -> None:
        """Gives those short windows that found no padding room in the middle of other functions.

        After the cold parts are known: what is one of them has computed jumps of its owner's.
        """
        reasons = self.rows["reason"]
        rows = [row for row in self.short if reasons[row] in (*_SHORTENED, *_SHORTENED_PARTS)]
        carriers = self._unreached_carriers(rows)
        self._accept_short({r: (c.hole, c.vaddr, c.window) for r, c in carriers.items()})

    def refuse_far(self) -> None:
        """Refuses, in an image of gigabytes, what refers to data that pads may be out of reach of.

        All of it where no place is within reach of all its code.
        """
        low, high = self.image.near
        if high - low > _FARTHEST_CODE_BYTES:
            self.refuse(self._accepted(), Reason.FAR)
        top = max(s.vaddr + s.memory_size for s in self.image.loads)
        if low <= self.image.low and high >= top:
            return
        for row in np.flatnonzero(self._accepted()).tolist():
            site = self.rows[row]
            moved = [(int(site["patch"]), site["original"].tobytes()[: int(site["window"])])]
            if site["kind"] == SiteKind.NOP:
                moved = []
            if site["carrier"]:
                moved.append(
                    (
                        int(site["hole"]) - PATCH_SIZE,
                        site["filler"].tobytes()[: int(site["carrier"])],
                    )
                )
            reached = (at for start, code in moved for at in _referred(code, start))
            if not all(low <= at < high for at in reached):
                site["reason"] = Reason.FAR

    def _accept_short(self, found: dict[int, tuple[int, int, int]]) -> None:
        # row -> (hole, vaddr of its filler, bytes of the carrier or 0); checked as all windows are.
        before = {row: self.rows[row].copy() for row in found}
        for row, (hole, start, carrier) in found.items():
            site = self.rows[row]
            site["kind"], site["window"], site["reason"] = SiteKind.SHORT, self.short[row].size, 0
            site["hole"], site["carrier"] = hole, carrier
            kept = self.image.read(start, carrier or PATCH_SIZE)
            site["filler"] = np.void(kept.ljust(ORIGINAL_BYTES, b"\0"))
        if found:
            self.refuse_wide_parts()
            self.refuse_pointed_at()
            self.refuse_loops()
            self.refuse_branched_into()
        for row, old in before.items():
            if self.rows["reason"][row]:
                reason = self.rows["reason"][row]
                self.rows[row] = old
                self.rows["reason"][row] = reason

    def _short_window(self, row: int) -> Window:
        patch = int(self.rows["patch"][row])
        code = next(iter(self._bytes_at([patch], _ENTRY_BYTES)))
        size = int(self.rows["entry"][row]) + int(self.functions.rows["size"][row]) - patch
        return prologue_window(code, patch, size, SHORT_SIZE)

    def _unreached_carriers(self, rows: list[int]) -> dict[int, Carrier]:
        # A carrier for each row that has one. Again only where nothing can be said to lead inside.
        if not rows or self.image.memory_bias is not None:
            return {}
        low = self.branches.low
        taken = self.branches.blank()
        for start, size in self._replaced(rows):
            taken[start - low : start - low + size] = True
        patches = self.rows["patch"][rows].tolist()
        may_carry = eligible(self.image, self.branches, self.rows["reason"], self.parts, patches)
        carriers = Carriers(self.image, self.branches, may_carry, taken)
        offered = {row: carriers.near(int(self.rows["patch"][row])) for row in rows}
        wanted = self.branches.blank()
        for places in offered.values():
            for place in places:
                wanted[place.inside.start - low : place.inside.stop - low] = True
        reached = {int(target) for target in self.branches.candidates_into(wanted).target}
        reached |= {target for _, target in self._named_in(wanted)}
        found = {}
        for row, places in offered.items():
            for place in places:
                if carriers.is_free(place) and reached.isdisjoint(place.inside):
                    carriers.take(place)
                    found[row] = place
                    break
        return found

    def _at(self, row: int) -> int:
        return int(self.rows["patch"][row])

    def _replaced(self, more: list[int]) -> Iterator[tuple[int, int]]:
        # (vaddr, bytes) of everything that is replaced, or will be for the short windows of `more`.
        for site in self.rows[self._accepted()]:
            yield int(site["patch"]), max(int(site["window"]), PATCH_SIZE)
            if site["hole"]:
                yield int(site["hole"]), PATCH_SIZE
        for row in more:
            yield self._at(row), max(self.short[row].size, SHORT_SIZE)

    def _unreached_holes(self, rows: NDArray[np.int64]) -> dict[int, int]:
        # A hole for each row that has one, row -> vaddr. Only bytes that nothing can be said to
        # lead to: not even by what a misread byte of code would be.
        ends = self.rows["entry"] + np.maximum(self.functions.rows["size"], 1)
        patched = np.where(self._accepted(), self.rows["patch"] + np.uint64(PATCH_SIZE), 0)
        holes = Holes(self.image, self.branches, self.rows["entry"], np.maximum(ends, patched))
        offered = {row: holes.near(int(self.rows["patch"][row])) for row in rows.tolist()}
        wanted = self.branches.blank()
        low = self.branches.low
        for places in offered.values():
            for place in places:
                wanted[place.gap - low : place.vaddr - low + PATCH_SIZE] = True
        reached = {int(target) for target in self.branches.candidates_into(wanted).target}
        reached |= {target for _, target in self._named_in(wanted)}
        found = {}
        for row in offered:
            for place in holes.near(int(self.rows["patch"][row])):
                if reached.isdisjoint(place.before):
                    holes.take(place)
                    found[row] = place.vaddr
                    break
        return found

    def refuse_tails(self) -> None:
        """Takes ranges without a symbol that may be cold parts of other functions for such.

        Functions are those that something calls or names, and those that stand alone. A cold part
        may be reached by a jump table as well, so being jumped to is no condition.
        """
        judged = self._accepted()
        judged[list(self.short)] = True
        unnamed = (self.functions.rows["kind"] == FunctionKind.FRAME) & judged & ~self.parts
        wanted = self.branches.blank()
        at = (self.rows["entry"][unnamed] - np.uint64(self.branches.low)).astype(np.int64)
        wanted[at] = True
        found = self.branches.candidates_into(wanted)
        by_reference = np.isin(found.opcode, (_CALL, _LEA))
        named = np.isin(self.rows["entry"], self._referred_to(found, by_reference))
        named |= np.isin(self.rows["entry"], self.image.code_pointers)
        words = {target for _, target in self.branches.words_naming(wanted)}
        named |= np.isin(self.rows["entry"], np.array(sorted(words), np.uint64))
        jumps = found.only(~by_reference)
        jumped: dict[int, set[int]] = {}
        for source, target in self.branches.confirmed(jumps):
            home = self.functions.containing(source)
            whole = home >= 0 and not self.parts[home] and not self.rows["reason"][home]
            if whole and (named[home] or not unnamed[home]):
                jumped.setdefault(target, set()).add(home)
        check = JumpCheck(self.image, self.branches, self.branches.blank(), self._parts())
        alone = []
        for row in np.flatnonzero(unnamed & ~named).tolist():
            entry = int(self.rows["entry"][row])
            aligned = entry % _FUNCTION_ALIGNMENT == 0 or len(jumped.get(entry, ())) > 1
            if aligned and self._stands_alone(row) and not check.has_tables(row):
                alone.append(row)
            else:
                self.parts[row] = True
        # The linker puts cold parts beside each other (GNU ld's -z keep-text-section-prefix and
        # its default script: .text.unlikely first).
        parts = np.concatenate(([False], self._parts(), [False]))
        for row in alone:
            if parts[row] or parts[row + 2]:
                self.parts[row] = True
        if self.image.landing_pads.unknown:
            self.refuse(self.parts, Reason.POINTER)
        self.refuse_wide_parts()

    def _referred_to(
        self, found: Candidates, by_reference: NDArray[np.bool_]
    ) -> NDArray[np.uint64]:
        # What calls and lea's refer to; unaligned addresses only if one of them is confirmed.
        source, target = found.source[by_reference], found.target[by_reference]
        unsure = target % _FUNCTION_ALIGNMENT != 0
        kept = set(target[~unsure].tolist())
        opcode = found.opcode[by_reference]
        order = np.argsort(target[unsure], kind="stable")
        columns = [column[unsure][order] for column in (source, opcode, target)]
        for number, vaddr in enumerate(columns[2].tolist()):
            one = Candidates(*(column[number : number + 1] for column in columns))
            if vaddr not in kept and any(self.branches.confirmed(one)):
                kept.add(vaddr)
        return np.array(sorted(kept), np.uint64)

    def _stands_alone(self, row: int) -> bool:
        # Whether nothing returns from a range to where it may have come from, and it reads nothing
        # that was left below the stack pointer: then it is a function that only tail calls enter,
        # or may be taken as one.
        flow = self.branches.flow(row)
        return flow.trusted and all(
            self._leaves_by_entry(row, instruction) and not _reads_red_zone(instruction)
            for instruction in flow.instructions
        )

    def _leaves_by_entry(self, row: int, instruction: Instruction) -> bool:
        # Whether an instruction branches nowhere but within its function or to an entry.
        if instruction.flow_control not in _JUMPS:
            return True
        home = self.functions.containing(instruction.near_branch_target)
        entry = home >= 0 and int(self.rows["entry"][home]) == instruction.near_branch_target
        return home in (row, -1) or entry

    def refuse_computed_jumps(self) -> None:
        """Refuses functions with a computed jump that is not known to stay out of every window."""
        check = JumpCheck(self.image, self.branches, self._interior(), self._parts())
        for row in self.branches.computed_jump_rows():
            found = check.row(row)
            if found.into:
                self._block(found.into, Reason.INDIRECT_JUMP)
            for jump, target in found.loops:
                looped = self.functions.containing(target)
                if looped >= 0 and not self.rows["reason"][looped]:
                    self.rows["reason"][looped] = Reason.LOOP
                    self.blockers[int(self.rows["entry"][looped])] = jump
            if found.unknown is not None:
                self._refuse_reached_from(row, found.unknown)

    def result(self) -> ModuleSites:
        """The finished rows; of refused ones only entry, patch, reason, original, size, part."""
        refused = ~self._accepted()
        self.rows["part"] = self.parts
        self.rows["kind"][refused] = SiteKind.REFUSED
        self.rows["window"][refused] = 0
        for name in ("hole", "carrier"):
            self.rows[name][refused] = 0
        return ModuleSites(self.rows, self.blockers)

    def refuse(self, which: NDArray[np.bool_], reason: Reason, *, always: bool = False) -> None:
        """Refuses rows; those refused already keep their reason, except with `always`."""
        self.rows["reason"][which if always else which & self._accepted()] = reason

    def _accepted(self) -> NDArray[np.bool_]:
        result: NDArray[np.bool_] = self.rows["reason"] == Reason.NONE
        return result

    def _parts(self) -> NDArray[np.bool_]:
        return self.parts.copy()

    def _interior(self) -> NDArray[np.bool_]:
        """Each byte of the accepted windows but the first, marked in a Branches.blank()."""
        marked = self.branches.blank()
        rows = self.rows[self._accepted()]
        first = (rows["patch"] - np.uint64(self.branches.low)).astype(np.int64)
        # with padding where the window is shorter
        taken = np.maximum(rows["window"], PATCH_SIZE).astype(np.int64)
        taken[rows["kind"] == SiteKind.SHORT] = SHORT_SIZE
        for step in range(1, LONGEST_WINDOW):
            at = first[taken > step] + step
            marked[at[at < len(marked)]] = True
        for inside, _ in self._carried():
            marked[inside.start - self.branches.low : inside.stop - self.branches.low] = True
        return marked

    def _carried(self) -> Iterator[tuple[range, np.void]]:
        # What nothing may enter of each carrier, and the row that it serves.
        for row in np.flatnonzero(self._accepted() & (self.rows["carrier"] != 0)).tolist():
            site = self.rows[row]
            yield Carrier(int(site["hole"]) - PATCH_SIZE, int(site["carrier"])).inside, site

    def _block(self, found: Iterable[tuple[int, int]], reason: Reason) -> None:
        """Refuses the rows whose windows hold a target; `found` are pairs (source, target)."""
        accepted = np.flatnonzero(self._accepted())
        patches, carried = self.rows["patch"][accepted], list(self._carried())
        for source, target in found:
            number = int(np.searchsorted(patches, np.uint64(target))) - 1
            # windows may overlap until the rows named by symbols are refused: look back
            while number >= 0 and target - int(patches[number]) < LONGEST_WINDOW:
                row = self.rows[accepted[number]]
                start, window = int(row["patch"]), int(row["window"])
                if start <= source < start + window and reason == Reason.BRANCH:
                    break  # moved together with what it branches to
                is_short = row["kind"] == SiteKind.SHORT
                end = start + (SHORT_SIZE if is_short else max(window, PATCH_SIZE))
                if target < end and not row["reason"]:
                    row["reason"] = reason
                    self.blockers[int(row["entry"])] = source
                number -= 1
            for inside, row in carried:
                if target in inside and source not in range(inside.start - 1, inside.stop):
                    row["reason"] = reason
                    self.blockers[int(row["entry"])] = source

    def _refuse_reached_from(self, row: int, jump: int) -> None:
        """Refuses the function with an unknown jump and, if it is a part, those around it; and all
        of its parts."""
        # It may as well go to where another function is whose address it makes.
        rows = {row, *self._made_by(row)}
        if self.parts[row]:
            rows |= self._owners.walk([row])
        # Of a part that only landing pads and tables lead to nobody knows whose it is.
        rows |= self._parts_of.walk(rows) | self._unowned
        for number in rows:
            site = self.rows[number]
            nop = site["kind"] == SiteKind.NOP and not self.parts[number]
            if not site["reason"] and not nop:
                site["reason"] = Reason.INDIRECT_JUMP
                self.blockers[int(site["entry"])] = jump
        for inside, site in self._carried():
            if self.functions.containing(inside.start) in rows:
                site["reason"] = Reason.INDIRECT_JUMP
                self.blockers[int(site["entry"])] = jump

    @cached_property
    def _entered(self) -> list[tuple[int, int]]:
        # (function or part that branches into a part, that part).
        wanted = self.branches.blank()
        for row in np.flatnonzero(self.parts).tolist():
            start = int(self.rows["entry"][row]) - self.branches.low
            wanted[start : start + int(self.functions.rows["size"][row])] = True
        confirmed = self.branches.confirmed(self.branches.candidates_into(wanted))
        within = self.functions.containing
        pairs = ((within(source), within(target)) for source, target in confirmed)
        return [(home, part) for home, part in pairs if home != part and min(home, part) >= 0]

    @cached_property
    def _owners(self) -> _Walk:
        # From parts to what branches into them.
        return _Walk([(part, home) for home, part in self._entered])

    @cached_property
    def _parts_of(self) -> _Walk:
        # To the parts that are branched into.
        return _Walk(self._entered)

    @cached_property
    def _unowned(self) -> set[int]:
        return set(np.flatnonzero(self.parts).tolist()) - {part for _, part in self._entered}

    def _made_by(self, row: int) -> list[int]:
        # The functions whose addresses, or what is inside of them, a function makes with lea.
        made = [
            self.functions.containing(instruction.ip_rel_memory_address)
            for instruction in self.branches.flow(row).instructions
            if instruction.mnemonic == Mnemonic.LEA and instruction.is_ip_rel_memory_operand
        ]
        return [other for other in made if other >= 0]

    # -- bytes ---------------------------------------------------------------------------------

    def _bytes_at(self, addresses: list[int], size: int) -> Iterable[bytes]:
        """Up to `size` bytes at each address of code, empty where the file has none."""
        segments = [
            (s.vaddr, s.vaddr + s.file_size, self.image.tail(s.vaddr).tobytes())
            for s in self.image.executable
        ]
        for address in addresses:
            for low, high, code in segments:
                if low <= address < high:
                    yield code[address - low : address - low + size]
                    break
            else:
                yield b""

    def _restorers(self) -> NDArray[np.bool_]:
        """Rows that contain a signal restorer, or start just before it (its frame does)."""
        found = [
            any(restorer in code for restorer in _RESTORERS) if size <= 32 else False
            for code, size in zip(
                self._bytes_at(self.rows["entry"].tolist(), ORIGINAL_BYTES),
                self.rows["size"].tolist(),
                strict=True,
            )
        ]
        return np.array(found, bool)

    def _stubs(self) -> NDArray[np.bool_]:
        """Rows in a procedure linkage table, known by section or by what they start with."""
        plt = [s for s in self.image.sections if s.name.startswith((".plt", ".iplt"))]
        entry = self.rows["entry"]
        stubs = np.zeros(len(entry), bool)
        for section in plt:
            stubs |= (entry >= section.vaddr) & (entry < section.vaddr + section.size)
        if not self.image.sections:
            unnamed = self.functions.rows["kind"] == FunctionKind.FRAME
            for row in np.flatnonzero(unnamed).tolist():
                code = next(iter(self._bytes_at([int(self.rows["patch"][row])], 3)))
                stubs[row] = code.startswith(_PLT_STARTS)
        return stubs


def _referred(code: bytes, start: int) -> Iterator[int]:
    """The addresses that operands of the instructions of a window have, relative to rip."""
    for instruction in Decoder(64, code, ip=start):
        if instruction.is_ip_rel_memory_operand:
            yield instruction.ip_rel_memory_address


class _Walk:
    # A graph of rows. What was walked to once is not walked to again, so that many walks together
    # take the time of one: a part that is refused stays so.

    def __init__(self, edges: Iterable[tuple[int, int]]) -> None:
        self._to: dict[int, set[int]] = {}
        self._seen: set[int] = set()
        for source, target in edges:
            self._to.setdefault(source, set()).add(target)

    def walk(self, starts: Iterable[int]) -> set[int]:
        """The rows that can be reached from `starts`, with them; none that were before."""
        waiting = [row for row in starts if row not in self._seen]
        found = set(waiting)
        while waiting:
            new = self._to.get(waiting.pop(), set()) - found - self._seen
            found |= new
            waiting += new
        self._seen |= found
        return found


def _reads_red_zone(instruction: Instruction) -> bool:
    """Whether an operand may be what was left below the stack pointer (psABI 3.2.2)."""
    kinds = (instruction.op_kind(number) for number in range(instruction.op_count))
    below = (
        instruction.memory_base == Register.RSP and instruction.memory_displacement >= 1 << 63
    )  # displacements are sign extended to 64 bits
    own = instruction.mnemonic == Mnemonic.LEA and instruction.op0_register == Register.RSP
    return below and not own and OpKind.MEMORY in kinds
