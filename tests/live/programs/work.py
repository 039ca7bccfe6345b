# Hashes and queries on demand: each line of standard input is one round, answered by one line.
import hashlib
import sqlite3
import sys

database = sqlite3.connect(":memory:")
database.execute("create table numbers (n integer, name text)")
database.executemany("insert into numbers values (?, ?)", ((n, f"name {n}") for n in range(2000)))
print("READY", flush=True)
for line in sys.stdin:
    digest = line.strip().encode()
    for _ in range(300):
        digest = hashlib.sha256(digest * 20).digest()
    total, longest = database.execute(
        "select sum(n * n), max(length(name)) from numbers where name like '%7%'"
    ).fetchone()
    print(digest.hex(), total, longest, flush=True)
