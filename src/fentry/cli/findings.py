"""What `fentry doctor` finds, one thing each: how bad it is, what it is, what helps."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad a finding is: nothing to do, something to know, or fentry will be refused."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line for people; `remedy` says what helps, "" where nothing is to be done."""

    level: Level
    text: str
    remedy: str = ""

    @property
    def line(self) -> str:
        """As it is printed."""
        return f"{self.level:8} {self.text}" + (f"; try: {self.remedy}" if self.remedy else "")


def ok(text: str) -> Finding:
    """Something that is as it should be, or is only said."""
    return Finding(Level.OK, text)


def warning(text: str, remedy: str = "") -> Finding:
    """Something that misleads or costs, while fentry works."""
    return Finding(Level.WARNING, text, remedy)


def problem(text: str, remedy: str = "") -> Finding:
    """Something for which fentry refuses."""
    return Finding(Level.PROBLEM, text, remedy)
