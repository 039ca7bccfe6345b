"""Lines of text put together from pieces of varying width, without a Python step per line.

A line is a row of pieces; a piece is one of a table of strings, chosen by an index, or up to
eight bytes computed by the caller.  Every piece is stored as whole 8-byte words straight into
the output, so a line costs a few stores and no intermediate copy.  A store that reaches beyond
its piece spoils at most 7 bytes of what follows, which is stored afterwards: pieces go from
the second to the last, and the first one, whose last word is made to end exactly where the
piece ends, comes at the very end and so repairs the start of every line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_WORD = 8

Words = NDArray[np.uint64]
Indices = NDArray[np.intp]


class Strings:
    """A table of byte strings, kept as 8-byte words, each string padded with zero bytes."""

    def __init__(self, strings: Sequence[bytes]) -> None:
        self.lengths = np.array([len(string) for string in strings], np.int64)
        nr_words = -(-self.lengths // _WORD)
        padded = [string.ljust(-(-len(string) // _WORD) * _WORD, b"\0") for string in strings]
        # one spare word, so that the empty string at the end has a word to read
        self.words: Words = np.frombuffer(b"".join(padded) + bytes(_WORD), np.uint64)
        self.firsts = np.cumsum(nr_words) - nr_words
        tails = [string[-_WORD:].ljust(_WORD, b"\0") for string in strings]
        self.tails: Words = np.frombuffer(b"".join(tails), np.uint64)

    def __len__(self) -> int:
        return len(self.lengths)


@dataclass(frozen=True, slots=True)
class Chosen:
    """A piece of each line out of `strings`: strings[index[i]] in line i."""

    strings: Strings
    index: Indices


@dataclass(frozen=True, slots=True)
class Computed:
    """A piece of the same `length` (1 to 8 bytes) in each line: the low bytes of words[i]."""

    words: Words
    length: int


def compose(first: Chosen, pieces: Sequence[Chosen | Computed]) -> memoryview:
    """All lines, one after the other; line i is first[i] followed by the pieces' i-th strings.

    Every string of `first` must have 8 bytes or more (ValueError otherwise); the last piece
    brings its own newline.
    """
    starts_of, length = _starts(first, pieces)
    if not length:
        return memoryview(b"")
    buffer = np.empty(length + _WORD, np.uint8)
    # a word can be stored at every byte: stride 1
    out: Words = np.ndarray(length + 1, np.uint64, buffer, 0, (1,))
    for piece, starts in zip(pieces, starts_of[1:], strict=True):
        if isinstance(piece, Computed):
            out[starts] = piece.words
        else:
            _store(out, piece, starts)
    _store_exactly(out, first, starts_of[0])
    return buffer.data[:length]


def _starts(first: Chosen, pieces: Sequence[Chosen | Computed]) -> tuple[list[Indices], int]:
    # where each piece of each line begins in the output, and the length of it all
    lengths = first.strings.lengths[first.index]
    if len(lengths) and lengths.min() < _WORD:
        raise ValueError("the first piece of a line has 8 bytes or more")
    offsets = [np.zeros(len(lengths), np.int64)]
    for piece in pieces:
        offsets.append(lengths)
        if isinstance(piece, Computed):
            lengths = lengths + piece.length
        else:
            lengths = lengths + piece.strings.lengths[piece.index]
    ends = np.cumsum(lengths)
    line_starts = ends - lengths
    return [line_starts + offset for offset in offsets], int(ends[-1]) if len(ends) else 0


def _store(out: Words, piece: Chosen, starts: Indices) -> None:
    strings = piece.strings
    places = strings.firsts[piece.index]
    out[starts] = strings.words[places]
    left = strings.lengths[piece.index] - _WORD
    at, left_at = starts, left
    while True:
        more = np.flatnonzero(left_at > 0)
        if not len(more):
            return
        if len(more) < len(at):
            at, places, left_at = at[more], places[more], left_at[more]
        at = at + _WORD
        places = places + 1
        left_at = left_at - _WORD
        out[at] = strings.words[places]


def _store_exactly(out: Words, piece: Chosen, starts: Indices) -> None:
    strings = piece.strings
    lengths = strings.lengths[piece.index]
    places = strings.firsts[piece.index]
    out[starts + (lengths - _WORD)] = strings.tails[piece.index]
    for word in range(int(lengths.max()) // _WORD):
        whole = lengths >= (word + 1) * _WORD
        if whole.all():
            out[starts + word * _WORD] = strings.words[places + word]
        else:
            out[starts[whole] + word * _WORD] = strings.words[places[whole] + word]
