"""Tables and counts as a notebook shows them: HTML in which a target's names are text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from fentry.formats.table import FunctionCount

_SHOWN = 20


def html_table(caption: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; everything in it is escaped."""
    lines = [f"<caption>{escape(caption)}</caption>", f"<tr>{_cells('th', head)}</tr>"]
    lines += [f"<tr>{_cells('td', row)}</tr>" for row in rows]
    return "<table>" + "\n".join(lines) + "</table>"


def counts_html(rows: Sequence[FunctionCount]) -> str:
    """The functions that were called most."""
    total = sum(row.calls for row in rows)
    more = f", the first {_SHOWN}" if len(rows) > _SHOWN else ""
    shown = [(row.calls, f"{row.share:.2%}", row.function, row.module) for row in rows[:_SHOWN]]
    caption = f"{total} calls of {len(rows)} functions{more}"
    return html_table(caption, ("calls", "share", "function", "module"), shown)


def _cells(kind: str, values: Iterable[object]) -> str:
    return "".join(f"<{kind}>{escape(str(value))}</{kind}>" for value in values)
