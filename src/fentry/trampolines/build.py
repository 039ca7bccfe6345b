"""Which flavour of trampoline a set of bodies needs."""

from __future__ import annotations

from collections.abc import Sequence

from fentry.trampolines.body import Body, CallBody, Traits
from fentry.trampolines.entry import build_entry
from fentry.trampolines.entry_regs import build_entry_regs
from fentry.x86.code import Code


def build_trampoline(bodies: Sequence[Body], traits: Traits, origin: int) -> Code:
    """The verified trampoline for `bodies`, in this order, to lie at `origin`: the light one, or
    that with all registers where a C function is called."""
    if any(isinstance(body, CallBody) for body in bodies):
        return build_entry_regs(bodies, traits, origin)
    return build_entry(bodies, traits, origin)
