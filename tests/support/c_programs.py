"""Programs of some hundred C functions, generated from a seed, as compilers build them.

The functions f_000 ... follow the patterns of c_patterns.py. Whoever calls one counts the call
just before, in the page shared with the test, and hides arguments and results from the optimiser:
so that the functions are as the compiler makes them, and each call in the text is one call.
tests/targets/compilers.c calls them all and checks what they answer.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support import c_patterns
from tests.support.build import TARGETS, building, content_hash, run_compiler, target_directory
from tests.support.compiled import run

PLAIN_FIRST = 8  # functions u64 (u64) at the start, for the others to call
DEEPEST = 3  # levels of calls below a function

PRELUDE = r"""
#define _GNU_SOURCE
#include <execinfo.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "compilers.h"
typedef uint64_t u64;
typedef uint32_t u32;
typedef uint8_t u8;
typedef u32 v4 __attribute__((vector_size(16)));
struct node { struct node *next; u64 value; };
struct three { u64 a, b, c; };
struct pair { long a; double b; };
struct big { u64 all[16]; };
#define KEEP __attribute__((noinline))
#define STAYS __asm__ volatile("") /* no call of this is left out, though the result is known */
#define CALLER static inline __attribute__((always_inline, unused, no_instrument_function)) UNSEEN
#ifdef __clang__
#define ALONE __attribute__((noinline, weak))
#define UNSEEN __attribute__((xray_never_instrument))
#if __has_feature(xray_instrument) /* its trampolines do not keep what this must */
#define PRESERVE_MOST
#else
#define PRESERVE_MOST __attribute__((preserve_most))
#endif
#else
#define ALONE __attribute__((noipa))
#define UNSEEN
#endif
#define UNLIKELY(condition) __builtin_expect(condition, 0)
#define OPAQUE(value) __asm__ volatile("" : "+r"(value))
#define SEEN(array) __asm__ volatile("" : : "r"(array) : "memory")
#define SLOT(name) name##_slot
#define CALLED(name) (page->slots[SLOT(name)].value++)
#define AGAIN(name, times) (page->slots[name##_again].value += (times))
CALLER u64 bits(double value) { u64 word; memcpy(&word, &value, 8); return word; }
CALLER u64 popcount(u64 x) { u64 n = 0; for (; x; x &= x - 1) n++; return n; }
static u64 cells[32];
static struct node nodes[8] = {{nodes + 1, 1}, {nodes + 2, 2}, {nodes + 3, 3}, {0, 4},
    {nodes + 1, 5}, {nodes + 2, 6}, {0, 7}, {0, 8}};
"""


@dataclass(frozen=True, slots=True)
class Build:
    """How a program is made: options of the compiler, and of the linker (by the compiler)."""

    compiler: str
    flags: tuple[str, ...]
    link: tuple[str, ...] = ()

    @property
    def is_clang(self) -> bool:
        return "clang" in self.compiler


def program_of(seed: int, count: int, build: Build, *, stripped: bool = False) -> Path:
    """The program of `count` functions of a seed, built once; `stripped`: without its symbols."""
    text = source_of(seed, count, is_clang=build.is_clang)
    digest = hashlib.sha256(text.encode()).hexdigest()
    words = [build.compiler, *build.flags, "-l", *build.link, digest]
    output = target_directory() / f"compilers-{content_hash(words)}"
    with building(output) as unfinished:
        if unfinished is not None:
            _compile(text, build, unfinished)
    if not stripped:
        return output
    bare = output.with_name(f"{output.name}-bare")
    with building(bare) as unfinished:
        if unfinished is not None:
            run("strip", "-s", "-o", str(unfinished), str(output))
    return bare


def _compile(text: str, build: Build, output: Path) -> None:
    source, middle = output.with_suffix(".c"), output.with_suffix(".o")
    source.write_text(text)
    try:
        words = [build.compiler, "-w", f"-I{TARGETS}", *build.flags]
        run_compiler([*words, "-c", str(source), "-o", str(middle)])
        driver = str(TARGETS / "compilers.c")
        words = [build.compiler, "-O2", "-pthread", *build.link]
        run_compiler([*words, driver, str(middle), "-o", str(output)])
    finally:
        source.unlink()
        middle.unlink(missing_ok=True)


def source_of(seed: int, count: int, *, is_clang: bool) -> str:
    """C text of at least `count` functions f_000 ..., of the table `forms`, and of `slot_names`.

    Each pattern comes in turn, so that every one is there if `count` allows it.
    """
    writer = _Writer(random.Random(seed))
    own = c_patterns.CLANG if is_clang else c_patterns.GCC
    parts = (c_patterns.LEAVES, c_patterns.FLOW, c_patterns.FRAMES, own)
    patterns = [pattern for part in parts for pattern in c_patterns.split(part)]
    for _ in range(PLAIN_FIRST):
        writer.add(*patterns[0])
    while len(writer.names) < count:
        for pattern in writer.chance.sample(patterns, len(patterns)):
            writer.add(*pattern)
            if len(writer.names) >= count:
                break
    return writer.text()


class _Writer:
    """The program while it is written."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.names: list[str] = []
        self.again: list[str] = []
        self.callers: dict[str, int] = {}  # functions with a caller -> levels of calls below
        self.plain: list[str] = []  # those that are u64 (u64)
        self.parts: list[str] = []

    def add(self, definition: str, call: str) -> None:
        """The functions of a pattern, and the caller of the first."""
        names = {letter: self._name() for letter in "FGH" if f"@{letter}" in definition}
        filled = _Filled(self, names)
        text = filled.fill(definition)
        line = filled.fill(call)
        name = names["F"]
        if f"AGAIN({name}" in line:
            self.again.append(name)
        self.parts += [
            text,
            f"CALLER u64 c{name[1:]}(u64 x) {{ OPAQUE(x); CALLED({name});"
            f" u64 r = (u64)({line}); OPAQUE(r); return r; }}",
        ]
        self.callers[name] = filled.deepest + 1
        if call == "@F(x)" and re.search(r"u64 @F\(u64 x\) *[{@]", definition):
            self.plain.append(name)

    def text(self) -> str:
        slots = [*self.names, *(f"again.{name}" for name in self.again)]
        numbers = [f"{name}_slot" for name in self.names] + [f"{n}_again" for n in self.again]
        words = ", ".join(f"0x{self.chance.getrandbits(63):x}ull" for _ in range(64))
        doubles = ", ".join(f"{self.chance.uniform(-9, 9):.3f}" for _ in range(16))
        rows = "".join(f'    {{"{name}", c{name[1:]}}},\n' for name in self.callers)
        return "\n".join(
            [
                PRELUDE,
                f"static u64 words[64] = {{{words}}};",
                f"static double doubles[16] = {{{doubles}}};",
                f"enum {{ {', '.join(numbers)} }};",
                *self.parts,
                f"const struct form forms[] = {{\n{rows}    {{0, 0}}}};",
                f"const char *const slot_names[] = {{{', '.join(map(_quoted, slots))}, 0}};",
                "",
            ]
        )

    def _name(self) -> str:
        self.names.append(f"f_{len(self.names):03}")
        return self.names[-1]


class _Filled:
    """One use of a pattern: what its marks are filled with."""

    def __init__(self, writer: _Writer, names: dict[str, str]) -> None:
        self.chance = writer.chance
        self.writer = writer
        self.marks = {**names, **self._functions()}
        self.deepest = 0
        self.same: str | None = None

    def _functions(self) -> dict[str, str]:
        plain = self.writer.plain
        return dict(zip("123", self.chance.sample(plain, 3), strict=True)) if plain[2:] else {}

    def fill(self, text: str) -> str:
        """The text with each mark filled in; what is between @{ and @} is the same each time."""
        text = re.sub(r"@\{(.*?)@\}", self._once, text, flags=re.DOTALL)
        text = re.sub("LINK", lambda _: self._link(), text)
        return re.sub(r"@([A-Za-z1-3])", lambda match: self._mark(match[1]), text)

    def _once(self, match: re.Match[str]) -> str:
        if self.same is None:
            self.same = self.fill(match[1])
        return f"{{ {self.same} }}"

    def _mark(self, letter: str) -> str:
        if letter in self.marks:
            if letter in "123":
                self._goes_to(self.marks[letter])
            return self.marks[letter]
        chance = self.chance
        match letter:
            case "k":
                return f"0x{chance.randrange(1, 1 << chance.choice([6, 16, 31, 40, 63])):x}ull"
            case "d":
                return f"{chance.uniform(0.1, 9):.3f}"
            case "m":
                return str(chance.randint(2, 9))
            case "s":
                return str(chance.randint(1, 31))
            case "b":
                return str(chance.choice([40, 100, 200, 1000, 5000, 20000]))
            case "e":
                return self._expression(chance.randint(1, 3))
            case "c":
                return self._call()
            case "w":
                return self._cases(lambda value: f"return {value};")
            case "v":
                return self._cases(lambda value: f"x = {value}; break;")
        raise AssertionError(letter)

    def _link(self) -> str:
        return self.chance.choices(
            [
                "static KEEP",
                "KEEP",
                "ALONE",
                "KEEP __attribute__((weak))",
                "KEEP __attribute__((aligned(64)))",
                'KEEP __attribute__((section(".text.other")))',
                "static KEEP __attribute__((hot))",
            ],
            [8, 5, 2, 1, 1, 1, 1],
        )[0]

    def _expression(self, depth: int) -> str:
        # Never a constant: a compiler that sees one leaves the call out.
        if not depth:
            return self.chance.choice(
                ["x", f"(x >> {self._mark('s')})", f"(x * {self._mark('k')} + 1)"]
            )
        a = b = self._expression(depth - 1)
        while a == b:
            b = self._expression(self.chance.randrange(depth))
        if self.chance.random() < 0.3:
            b = self._mark("k")
        form = self.chance.choice(
            ["({a} + {b})", "({b} - {a})", "({a} * ({b} | 1))", "({a} ^ {b})", "({a} << {m})",
             "({a} / {m})", "({a} % {k})", "({a} < {b} ? {a} : {a} * {m})", "popcount({a})",
             "({b} + ~{a})"]
        )  # fmt: skip
        return form.format(a=a, b=b, m=self._mark("m"), k=self.chance.randint(10, 1 << 30))

    def _call(self) -> str:
        callers = [name for name, depth in self.writer.callers.items() if depth < DEEPEST]
        name = self.chance.choice(callers)
        self._goes_to(name)
        return f"c{name[1:]}({self._expression(1)})"

    def _goes_to(self, name: str) -> None:
        self.deepest = max(self.deepest, self.writer.callers[name])

    def _cases(self, act: Callable[[str], str]) -> str:
        lines = []
        for value in range(self.chance.choice([5, 8, 8, 16])):
            lines.append(f"case {value}:")
            if self.chance.random() < 0.8:
                what = self._call() if self.chance.random() < 0.3 else self._expression(1)
                lines.append(act(what))
        return " ".join([*lines, act("x")])


def _quoted(text: str) -> str:
    return f'"{text}"'
