"""The words of a filter, as of set_ftrace_filter: which functions somebody wants.

GLOB         functions whose name matches (fnmatch(3))
re:EXPR      functions in whose name the regular expression is found
MODULE!...   either of the two, in modules whose name matches the glob MODULE
0xADDRESS    the function that begins there
NUMBER       the function with this index, from 1, among those that can be traced
part:WORD    parts of functions: of names that WORD matches, with or without their `.cold`
!WORD        takes what WORD matches away from what the words before it chose; as the first
             word, from all functions

Parts (`f.cold`) are entered by jumps in the middle of a call: GLOB and EXPR mean none of them.
Their whole names do, as `fentry list` prints them, and addresses, numbers, and what takes away.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fentry.errors import BadInput

REGEX = "re:"
PART = "part:"
COLD = re.compile(r"\.cold(?=\.|$)")
"""What compilers call parts: f.cold, f.cold.1; not main.coldStart of other languages."""


@dataclass(frozen=True)
class Pattern:
    """One word. `module` is a glob or None; `removes` says whether it began with "!", `part`
    whether "part:" came then."""

    text: str
    removes: bool
    module: str | None
    name: str
    is_regex: bool
    part: bool = False

    @cached_property
    def expression(self) -> re.Pattern[str]:
        """Of names: `matches` asks it."""
        return re.compile(self.name if self.is_regex else fnmatch.translate(self.name))

    def matches(self, name: str) -> bool:
        """Whether a name is one of those that the word means."""
        found = self.expression.search if self.is_regex else self.expression.match
        return found(name) is not None

    @property
    def address(self) -> int | None:
        """Of the function, where the word is an address."""
        return int(self.name, 16) if self._is(r"0x[0-9a-fA-F]{1,16}") else None

    @property
    def index(self) -> int | None:
        """Of the function, from 1, where the word is a number."""
        return int(self.name) if self._is(r"[0-9]{1,9}") else None

    def _is(self, form: str) -> bool:
        plain = self.module is None and not self.is_regex and not self.part
        return plain and re.fullmatch(form, self.name) is not None


def parse(text: str) -> Pattern:
    """The pattern of a word. Raises BadInput, with a caret below the fault, if it is malformed."""
    removes = text.startswith("!")
    word = text[1:] if removes else text
    part = word.startswith(PART)
    word = word.removeprefix(PART)
    module, mark, name = word.rpartition("!")
    regex = re.fullmatch(r"(?:([^!]*)!)?re:(.*)", word, re.DOTALL)
    if regex:
        module, mark, name = regex[1] or "", "!" if regex[1] is not None else "", regex[2]
    elif mark and word[: len(module) + 1].endswith("[!"):
        module, mark, name = "", "", word  # a negated class of characters, not a module
    fault = _fault(word, module, mark, name, is_regex=regex is not None)
    if fault is not None:
        place, cause = fault
        raise BadInput(
            f"malformed pattern\n    {text}\n    {' ' * (place + len(text) - len(word))}^",
            cause=cause,
            remedy="GLOB, MODULE!GLOB, like 'libc!mem*', or re:EXPRESSION",
        )
    return Pattern(text, removes, module if mark else None, name, regex is not None, part)


def choose(
    words: Sequence[str],
    count: int,
    match: Callable[[Pattern], NDArray[np.bool_]],
    *,
    from_all: bool = True,
) -> NDArray[np.bool_]:
    """Which of `count` functions the words choose, in their order; no words choose all: bool[n].

    `match` says which functions a pattern means, whether it removes them or not. Unless `from_all`,
    a first word that removes begins with none.
    """
    chosen = np.zeros(count, np.bool_)
    for number, word in enumerate(words or ("*",)):
        pattern = parse(word)
        found = match(pattern)
        if not pattern.removes:
            chosen = chosen | found
        elif number:
            chosen = chosen & ~found
        else:
            chosen = ~found & from_all
    return chosen


def _fault(
    word: str, module: str, mark: str, name: str, *, is_regex: bool
) -> tuple[int, str] | None:
    # (where, why) a word is malformed.
    if not name:
        return len(word), "an empty name"
    if mark and not module:
        return 0, "an empty name of a module"
    if is_regex:
        try:
            re.compile(name)
        except re.error as error:
            return len(word) - len(name) + (error.pos or 0), error.msg
        return None
    opened = word.rfind("[")
    if opened >= 0 and "]" not in word[opened:]:
        return opened, "a bracket that is not closed"
    return None
