"""Programs at work for as long as one likes: each round has an answer that is known untraced.

A work is a running program that is asked (`ask`), or commands, one a round, that are started.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.live.programs.fed import fed, folder
from tests.live.programs.servers import PAGE, Redis, ask_redis, fetch, nginx_server, redis_server
from tests.support.build import build
from tests.support.machine import need_tool
from tests.support.unprivileged import PATIENCE_S, Account

from fentry.process.proc import children_of

HERE = Path(__file__).resolve().parent
ROUNDS = 12  # different ones of each work


@dataclass(frozen=True, slots=True)
class Asked:
    """A program that runs; `ask(n)` gives what it answers to round n."""

    pids: tuple[int, ...]
    ask: Callable[[int], str]


@dataclass(frozen=True, slots=True)
class Started:
    """Commands, started one a round; of what they print, `answer` is the same each time."""

    commands: Sequence[Sequence[str]]
    answer: Callable[[str], str]
    folder: Path


Work = Asked | Started


# SQLite


def query(number: int) -> str:
    """Statements in one line, with one line of result."""
    rows, modulus = 300 + number * 40, 11 + number
    return (
        "drop table if exists a; drop table if exists b; "
        "create table a (id integer primary key, k int, name text); "
        "create table b (k int, value real, primary key (k, value)) without rowid; "
        f"insert into a select value, value * value % {modulus}, printf('n%05d', value * 7919 % "
        f"10007) from generate_series(1, {rows}); "
        f"insert into b select id % {modulus}, id / 7.0 from a where id % 3; "
        "create index a_name on a (name, k); begin; update a set k = k + 1 where name like '%3%'; "
        "delete from a where id in (select id from a order by name desc limit 17); commit; "
        "select json_group_array(line) from (select printf('%d %d %.4f %s', a.k, count(*), "
        "total(value), max(name)) as line from a join b using (k) group by a.k "
        "having count(*) > 2 order by total(value) desc, a.k) union all select "
        "group_concat(rank) from (select rank() over (partition by k order by name) as rank "
        "from a order by id) order by 1 limit 1;"
    )


@contextmanager
def sqlite(account: Account) -> Iterator[Work]:
    with fed(need_tool("sqlite3"), ":memory:", account=account, first="") as program:
        yield Asked((program.pid,), lambda number: program.ask(query(number), PATIENCE_S))


# CPython's own tests

# The shortest first: in a minute there is time for some of them only.
MODULES = (
    "float", "sort", "struct", "generators", "collections", "hashlib", "zlib", "unicode",
    "dict", "math", "ctypes", "long", "json", "bytes", "set", "exceptions", "decimal", "bz2",
    "pickle", "threading",
)  # fmt: skip
_TEST_LINE = re.compile(r"^(.* \.\.\. (ok|skipped .*|FAIL|ERROR)|Ran \d+ tests|OK.*|FAILED.*)$")


def test_results(text: str) -> str:
    """The results of all tests, without times."""
    lines = (re.sub(r" in [\d.]+s$", "", line) for line in text.splitlines())
    return "\n".join(line for line in lines if _TEST_LINE.match(line))


@contextmanager
def python(account: Account) -> Iterator[Work]:
    with folder(account) as place:
        command = ("/usr/bin/python3", "-m", "test", "-v", "--tempdir", str(place))
        yield Started([(*command, f"test_{name}") for name in MODULES], test_results, place)


# Redis


@contextmanager
def redis(account: Account) -> Iterator[Work]:
    with redis_server(account) as (target, path):
        yield Asked((target.pid,), lambda number: _benchmark(path, number))


def _benchmark(path: Path, number: int) -> str:
    # Of what the benchmark did, Redis itself must know afterwards.
    count = 1000 + 100 * number
    redis = Redis(path)
    assert redis("FLUSHALL") == "OK"
    tests = "set,get,incr,lpush,rpush,lpop,rpop,sadd,hset,spop,zadd,zpopmin,lrange_100,mset"
    command = ["redis-benchmark", "-s", path, "-q", "-c", "20", "-n", count, "-r", 100, "-t", tests]
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    assert "rror" not in done.stdout + done.stderr, done.stdout
    sums = "local n = 0; for _, k in ipairs(redis.call('keys', 'counter:*')) do "
    sums += "n = n + redis.call('get', k) end; return tostring(n)"
    known = redis("EVAL", sums, 0), redis("LLEN", "mylist"), redis("EXISTS", "myset")
    redis.close()
    return f"{known} {ask_redis(path, 20 + number)}"


# nginx


@contextmanager
def nginx(account: Account) -> Iterator[Work]:
    with nginx_server(account) as (target, port):

        def ask(number: int) -> str:
            with ThreadPoolExecutor(8) as clients:
                bodies = set().union(*clients.map(fetch, [port] * 8, [20 + number] * 8))
            return "the page" if bodies == {PAGE} else repr(bodies)

        yield Asked((target.pid, *children_of(target.pid)), ask)


# bash


@contextmanager
def bash(account: Account) -> Iterator[Work]:
    with fed("/bin/bash", account=account, first="") as program:
        assert program.ask((HERE / "script.sh").read_text()) == "READY"
        yield Asked((program.pid,), lambda number: program.ask(f"round {number}", PATIENCE_S))


# OpenSSL

_KEY = "00112233445566778899aabbccddeeff"


@contextmanager
def openssl(account: Account) -> Iterator[Work]:
    tool = need_tool("openssl")
    with folder(account) as place:

        def run(*words: str) -> None:
            subprocess.run([tool, *words], cwd=place, capture_output=True, check=True)

        (place / "text").write_text("to be signed\n" * 20_000)
        for kind, *options in (
            ("RSA", "-pkeyopt", "rsa_keygen_bits:2048"),
            ("EC", "-pkeyopt", "ec_paramgen_curve:P-256"),
        ):
            run("genpkey", "-algorithm", kind, *options, "-out", f"{kind}.key")
            run("pkey", "-in", f"{kind}.key", "-pubout", "-out", f"{kind}.pub")
            run("dgst", "-sha256", "-sign", f"{kind}.key", "-out", f"{kind}.signature", "text")
        subject = ("-subj", "/CN=fentry", "-days", "30")
        run("req", "-x509", "-new", "-key", "RSA.key", *subject, "-out", "authority.pem")
        for path in place.iterdir():
            path.chmod(0o644)
        verify = ("dgst", "-sha256", "-verify")
        words = (
            ("dgst", "-sha512", "text"),
            (*verify, "RSA.pub", "-signature", "RSA.signature", "text"),
            (*verify, "EC.pub", "-signature", "EC.signature", "text"),
            (*verify, "EC.pub", "-signature", "RSA.signature", "text"),  # it must fail
            ("verify", "-CAfile", "authority.pem", "authority.pem"),
            ("enc", "-aes-256-cbc", "-a", "-K", _KEY * 2, "-iv", _KEY, "-in", "text"),
            ("enc", "-chacha20", "-a", "-K", _KEY * 2, "-iv", _KEY, "-in", "text"),
            ("pkey", "-in", "RSA.key", "-text", "-noout"),
            ("x509", "-in", "authority.pem", "-text", "-noout"),
            ("speed", "-seconds", "1", "-bytes", "1024", "sha256", "aes-128-cbc"),
            ("prime", "-hex", "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD1"),
            ("speed", "-seconds", "1", "rsa2048", "ecdsap256"),
        )
        yield Started([(tool, *line) for line in words], _without_figures, place)


def _without_figures(text: str) -> str:
    # What speed prints depends on the time, and how many of its tests it runs at all: a busy
    # machine has it leave out some.
    is_speed = "Doing" in text or "options:" in text
    return "figures" if is_speed else text


# A C++ program with threads


@contextmanager
def workers(account: Account) -> Iterator[Work]:
    with fed(build("workers.cpp"), account=account) as program:
        yield Asked((program.pid,), lambda number: program.ask(str(number), PATIENCE_S))


WORKS: dict[str, Callable[[Account], AbstractContextManager[Work]]] = {
    "sqlite3": sqlite,
    "python3 -m test": python,
    "redis-server": redis,
    "nginx": nginx,
    "bash": bash,
    "openssl": openssl,
    "C++ threads": workers,
}
