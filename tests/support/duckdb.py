"""DuckDB as an independent reader of Parquet files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.machine import missing

Rows = list[tuple[Any, ...]]


def query(sql: str, file: Path) -> Rows:
    """The rows of a query over a Parquet file: `calls` are its rows, FILE is its quoted name."""
    try:
        import duckdb
    except ImportError:
        missing("the package duckdb (`make setup` installs it)")
    with duckdb.connect(config={"threads": 1}) as connection:  # we fork: no threads
        name = str(file).replace("'", "''")
        connection.execute(f"create view calls as from read_parquet('{name}')")
        rows: Rows = connection.execute(sql.replace("FILE", f"'{name}'")).fetchall()
        return rows
