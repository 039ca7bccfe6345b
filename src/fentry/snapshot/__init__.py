"""What a process has recorded, read out of its memory, alive or dead, as a trace file."""

from fentry.snapshot.trace import Source, Written, write_snapshot

__all__ = ["Source", "Written", "write_snapshot"]
