"""Links from page to page: the file is there, and so is the heading."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[3]
PAGES = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").rglob("*.md"))]

LINK = re.compile(r"\]\(([^()\s]+(?:\([^()\s]*\)[^()\s]*)*)\)")


def prose_of(text: str) -> str:
    """A page without code, in which brackets and parentheses are no links."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"(?:(?<=\n\n)|\A)(?: {4}.*\n|\n(?= {4}))+", "", text)
    return re.sub(r"`[^`\n]*`", "", text)


def anchors_of(text: str) -> set[str]:
    """What may follow `#`: headings as GitHub and myst-parser name them."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    found = set()
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        words = re.sub(r"[^\w\- ]", "", heading.strip().lower())
        found.add(words.replace(" ", "-"))
    return found


def faults_of(page: Path) -> list[str]:
    faults = []
    for target in LINK.findall(prose_of(page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        if not path.exists():
            faults.append(f"{target}: there is no such file")
        elif anchor and anchor not in anchors_of(path.read_text()):
            faults.append(f"{target}: there is no such heading")
    return faults


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    assert faults_of(page) == []


# The rule itself, on a page with known faults.


def test_links_to_nowhere_are_faults_and_code_has_none(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# What it *is*\n")
    page = tmp_path / "page.md"
    page.write_text(
        "# Here\n[a](other.md) [b](other.md#what-it-is) [c](#here) [d](https://x.org/none)\n"
        "[e](gone.md) [f](other.md#elsewhere) [g](#there) `[h](code)`\n\n"
        "    [i](code)\n\n```\n[j](code)\n```\n"
    )
    assert faults_of(page) == [
        "gone.md: there is no such file",
        "other.md#elsewhere: there is no such heading",
        "#there: there is no such heading",
    ]
