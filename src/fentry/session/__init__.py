"""One attach: `attach`, `adopt` and `run` make a Session, the facade of what it consists of."""

from fentry.session.options import BUFFER_BYTES, LIST, SETS, Options, check_memory
from fentry.session.session import Session, adopt, attach, run

__all__ = [
    "BUFFER_BYTES",
    "LIST",
    "SETS",
    "Options",
    "Session",
    "adopt",
    "attach",
    "check_memory",
    "run",
]
