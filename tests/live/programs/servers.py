"""Redis and nginx at work, and the clients that ask them."""

from __future__ import annotations

import http.client
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.live.programs.fed import folder
from tests.support.machine import need_tool
from tests.support.process import Target, start
from tests.support.unprivileged import Account

from fentry.process.proc import children_of


class Redis:
    """The few words of the protocol that are needed (RESP, redis.io/docs/reference)."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._reader = self._socket.makefile("rb")

    def __call__(self, *words: object) -> str:
        parts = [str(word).encode() for word in words]
        self._socket.sendall(
            b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts)
        )
        line = self._reader.readline()
        if line.startswith(b"$"):
            return self._reader.read(int(line[1:]) + 2)[:-2].decode()
        return line[1:-2].decode()

    def close(self) -> None:
        self._reader.close()
        self._socket.close()


def ask_redis(path: Path, rounds: int) -> tuple[int, str, str]:
    """A few hundred requests; each round checks its answers. (sum, length, a value) at the end."""
    redis = Redis(path)
    assert redis("FLUSHALL") == "OK"
    total = 0
    for i in range(rounds):
        assert redis("SET", f"key:{i}", "value " * (i % 50)) == "OK"
        assert redis("GET", f"key:{i}") == "value " * (i % 50)
        assert redis("RPUSH", "list", i) == str(i + 1)
        total = int(redis("INCRBY", "sum", i))
    answer = total, redis("LLEN", "list"), redis("EVAL", "return redis.call('GET', 'key:7')", 0)
    redis.close()
    return answer


@contextmanager
def redis_server(account: Account) -> Iterator[tuple[Target, Path]]:
    """redis-server and the socket that it answers at."""
    with folder(account) as place:
        path = place / "socket"
        options = ["--port", 0, "--unixsocket", path, "--save", "", "--dir", place]
        server = need_tool("redis-server")
        with start(server, *options, account=account, control=False) as target:
            target.await_condition(lambda: "ccept connections" in target.out, "serving")
            yield target, path


CONFIGURATION = """
worker_processes 2; daemon off; master_process on; pid {place}/pid; error_log {place}/errors;
{user} events {{ worker_connections 64; }}
http {{
    access_log off; client_body_temp_path {place}/b; proxy_temp_path {place}/p;
    fastcgi_temp_path {place}/f; uwsgi_temp_path {place}/u; scgi_temp_path {place}/s;
    server {{ listen 127.0.0.1:{port}; root {place}/www; }}
}}
"""
PAGE = "".join(f"line {i}\n" for i in range(2000)).encode()


@contextmanager
def nginx_server(account: Account) -> Iterator[tuple[Target, int]]:
    """nginx with two workers, that serves PAGE as /page.txt, and its port."""
    with folder(account) as place:
        (place / "www").mkdir()
        (place / "www" / "page.txt").write_bytes(PAGE)
        port, user = free_port(), "user root;" if account.uid == 0 else ""
        text = CONFIGURATION.format(place=place, port=port, user=user)
        (place / "nginx.conf").write_text(text)
        for path in (place / "www", place / "www" / "page.txt", place / "nginx.conf"):
            os.chown(path, account.uid, account.uid)
        options = ["-c", place / "nginx.conf", "-e", place / "errors", "-p", place]
        with start(need_tool("nginx"), *options, account=account, control=False) as target:
            target.await_condition(lambda: accepts(port), "serving")
            target.await_condition(lambda: len(children_of(target.pid)) == 2, "two workers")
            try:
                yield target, port
            finally:
                target.kill(signal.SIGTERM)  # else the workers would outlive it


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def fetch(port: int, count: int) -> set[bytes]:
    """What `count` requests for the page get, each over a connection of its own."""
    bodies = set()
    for _ in range(count):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/page.txt")
        bodies.add(connection.getresponse().read())
        connection.close()
    return bodies


def accepts(port: int) -> bool:
    """Whether somebody listens on the port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
