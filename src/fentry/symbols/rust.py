"""Names of Rust functions as their source has them: v0 (RFC 2603) and legacy mangling.

As rustc's own demangler prints them, without the hashes of crates.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_LEGACY = re.compile(r"_ZN(.*17h[0-9a-f]{16})E(?:\.llvm\.[0-9A-F]+)?")
_ESCAPES = {
    "SP": "@", "BP": "*", "RF": "&", "LT": "<", "GT": ">", "LP": "(", "RP": ")", "C": ",",
}  # fmt: skip
_BASIC = {
    "a": "i8", "b": "bool", "c": "char", "d": "f64", "e": "str", "f": "f32", "h": "u8",
    "i": "isize", "j": "usize", "l": "i32", "m": "u32", "n": "i128", "o": "u128", "s": "i16",
    "t": "u16", "u": "()", "v": "...", "x": "i64", "y": "u64", "z": "!", "p": "_",
}  # fmt: skip
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_DEEPEST = 200
_LONGEST = 1 << 14


class _Malformed(ValueError):
    """It is no Rust name after all."""


def demangle_rust(name: str) -> str | None:
    """The name in the source, or None where it is not a mangled Rust name, or would be longer than
    real ones are."""
    if len(name) > _LONGEST:
        return None
    legacy = _LEGACY.fullmatch(name)
    if legacy:
        return _of_legacy(legacy[1])
    if not re.match(r"_R[A-Z]", name) or not name.isascii():
        return None
    symbol, dot, suffix = name[2:].partition(".")
    try:
        path = _Reader(symbol).path(in_value=True)
    except (ValueError, IndexError):  # malformed; or a number of thousands of digits
        return None
    return path if not dot or suffix.startswith("llvm.") else f"{path}.{suffix}"


def _of_legacy(text: str) -> str | None:
    parts, i = [], 0
    while i < len(text):
        length = re.compile(r"[0-9]{1,9}").match(text, i)
        if length is None or length.end() + int(length[0]) > len(text):
            return None
        i = length.end() + int(length[0])
        parts.append(_unescaped(text[length.end() : i]))
    return "::".join(parts)


def _unescaped(part: str) -> str:
    part = part[1:] if part.startswith("_$") else part

    def letter(match: re.Match[str]) -> str:
        code = match[1]
        return chr(int(code[1:], 16)) if code[0] == "u" else _ESCAPES.get(code, match[0])

    plain = re.sub(r"\$(u[0-9a-f]{1,5}|[A-Z]{1,2})\$", letter, part)
    return plain.replace("..", "::")


class _Reader:
    # One symbol behind "_R", read by the grammar of the RFC.

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0
        self._lifetimes = 0
        self._letters = 0

    def path(self, *, in_value: bool = False) -> str:
        """<path>; `in_value`: generic arguments are written behind "::"."""
        tag = self._next()
        if tag == "C":
            return self._identifier()[1]
        if tag in "MX":
            self._disambiguator()
            self._nested(self.path)  # where the impl is, which is not written
        if tag == "M":
            return f"<{self._nested(self._type)}>"
        if tag in "XY":
            own, trait = self._nested(self._type), self._nested(self.path)
            return f"<{own} as {trait}>"
        if tag == "N":
            return self._in_namespace(in_value)
        if tag == "I":
            path = self._nested(lambda: self.path(in_value=in_value))
            return f"{path}{'::' if in_value else ''}<{self._until_end(self._argument)}>"
        if tag == "B":
            return self._again(lambda: self.path(in_value=in_value))
        raise _Malformed(tag)

    def _in_namespace(self, in_value: bool) -> str:
        space = self._next()
        path = self._nested(lambda: self.path(in_value=in_value))
        number, name = self._identifier()
        if space.islower():
            return f"{path}::{name}" if name else path
        kind = {"C": "closure", "S": "shim"}.get(space, space)
        return f"{path}::{{{kind}{':' + name if name else ''}#{number}}}"

    def _argument(self) -> str:
        if self._has("L"):
            return self._lifetime()
        return self._const() if self._has("K") else self._type()

    def _type(self) -> str:
        tag = self._peek()
        if tag in _BASIC:
            self._at += 1
            return _BASIC[tag]
        if tag in "CMXYNI":
            return self.path()
        self._at += 1
        if tag in "AS":
            item = self._nested(self._type)
            return f"[{item}; {self._const()}]" if tag == "A" else f"[{item}]"
        if tag == "T":
            items, count = self._listed(self._type)
            return f"({items},)" if count == 1 else f"({items})"
        if tag in "RQ":
            lifetime = self._lifetime() + " " if self._has("L") else ""
            lifetime = "" if lifetime == "'_ " else lifetime
            return f"&{lifetime}{'mut ' if tag == 'Q' else ''}{self._nested(self._type)}"
        if tag in "PO":
            return f"*{'const' if tag == 'P' else 'mut'} {self._nested(self._type)}"
        if tag == "F":
            return self._bound(self._function)
        if tag == "D":
            traits = self._bound(lambda: self._until_end(self._trait, " + "))
            self._expect("L")
            lifetime = self._lifetime()
            return f"dyn {traits}" + (f" + {lifetime}" if lifetime != "'_" else "")
        if tag == "B":
            return self._again(self._type)
        raise _Malformed(tag)

    def _function(self) -> str:
        unsafe = "unsafe " if self._has("U") else ""
        abi = ""
        if self._has("K"):
            name = "C" if self._has("C") else self._plain_identifier().replace("_", "-")
            abi = f'extern "{name}" '
        arguments = self._until_end(self._type)
        result = self._nested(self._type)
        return f"{unsafe}{abi}fn({arguments})" + ("" if result == "()" else f" -> {result}")

    def _trait(self) -> str:
        path = self.path()
        bindings = []
        while self._has("p"):
            name = self._plain_identifier()
            bindings.append(f"{name} = {self._nested(self._type)}")
        if not bindings:
            return path
        joined = ", ".join(bindings)
        return f"{path[:-1]}, {joined}>" if path.endswith(">") else f"{path}<{joined}>"

    def _const(self) -> str:
        if self._has("p"):
            return "_"
        if self._has("B"):
            return self._again(self._const)
        kind = self._next()
        sign = "-" if self._has("n") else ""
        digits = self._upto("_")
        if kind not in _BASIC or re.fullmatch("[0-9a-f]*", digits) is None:
            raise _Malformed(kind)
        value = int(digits or "0", 16)
        if kind == "b":
            return "true" if value else "false"
        if kind == "c":
            return repr(chr(value)) if value < 0x110000 else "?"
        return f"{sign}{value}"

    # lifetimes and binders

    def _lifetime(self) -> str:
        number = self._base62()
        if not number:
            return "'_"
        depth = self._lifetimes - number
        return f"'{chr(ord('a') + depth)}" if 0 <= depth < 26 else f"'_{depth}"

    def _bound(self, read: Callable[[], str]) -> str:
        count = self._base62() + 1 if self._has("G") else 0
        if count > _DEEPEST:
            raise _Malformed("binder")
        names = []
        for _ in range(count):
            self._lifetimes += 1
            letter = self._lifetimes - 1
            names.append(f"'{chr(ord('a') + letter)}" if letter < 26 else f"'_{letter}")
        text = self._nested(read)
        self._lifetimes -= count
        return f"for<{', '.join(names)}> {text}" if names else text

    # letters

    def _identifier(self) -> tuple[int, str]:
        number = self._disambiguator()
        return number, self._plain_identifier()

    def _disambiguator(self) -> int:
        return self._base62() + 1 if self._has("s") else 0

    def _plain_identifier(self) -> str:
        is_punycode = self._has("u")
        digits = re.compile("0|[1-9][0-9]*").match(self._text, self._at)
        if digits is None:
            raise _Malformed("identifier")
        self._at = digits.end()
        self._has("_")
        text = self._text[self._at : self._at + int(digits[0])]
        self._at += int(digits[0])
        if len(text) < int(digits[0]):
            raise _Malformed("identifier")
        if not is_punycode:
            return text
        basic, mark, rest = text.rpartition("_")
        try:
            return f"{basic}{'-' if mark else ''}{rest}".encode().decode("punycode")
        except UnicodeError as error:
            raise _Malformed("punycode") from error

    def _base62(self) -> int:
        digits = self._upto("_")
        if not digits:
            return 0
        value = 0
        for digit in digits:
            if digit not in _DIGITS:
                raise _Malformed(digit)
            value = value * 62 + _DIGITS.index(digit)
        return value + 1

    def _again(self, read: Callable[[], str]) -> str:
        # <backref>: what was read at an earlier place, once more.
        start = self._at - 1
        target, behind = self._base62(), self._at
        if target >= start:
            raise _Malformed("backref")
        self._at = target
        text = self._nested(read)
        self._at = behind
        return text

    def _listed(self, read: Callable[[], str], between: str = ", ") -> tuple[str, int]:
        items = []
        while not self._has("E"):
            items.append(self._nested(read))
        return between.join(items), len(items)

    def _until_end(self, read: Callable[[], str], between: str = ", ") -> str:
        return self._listed(read, between)[0]

    def _nested(self, read: Callable[[], str]) -> str:
        # A name can refer to itself again and again: its text is bounded, not only its depth.
        self._depth += 1
        if self._depth > _DEEPEST or self._letters > _LONGEST:
            raise _Malformed("too long")
        text = read()
        self._letters += 1 + len(text)
        self._depth -= 1
        return text

    def _upto(self, mark: str) -> str:
        end = self._text.find(mark, self._at)
        if end < 0:
            raise _Malformed(mark)
        text, self._at = self._text[self._at : end], end + 1
        return text

    def _expect(self, letter: str) -> None:
        if not self._has(letter):
            raise _Malformed(letter)

    def _has(self, letter: str) -> bool:
        found = self._text.startswith(letter, self._at)
        self._at += found
        return found

    def _peek(self) -> str:
        return self._text[self._at]

    def _next(self) -> str:
        self._at += 1
        return self._text[self._at - 1]
