"""The x86 layer: bytes only."""
