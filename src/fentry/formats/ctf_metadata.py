"""The metadata of a trace in the Common Trace Format: a text in TSDL.

Source: Common Trace Format Specification v1.8.2 (diamon.org/ctf): 7 is the language, 7.4 shows the
blocks, 8 is about clocks, C.1.6 says what a string literal may hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from string import Template
from uuid import UUID

from fentry.events.clock import NS_PER_SECOND
from fentry.formats.ctf_events import Label, Labels
from fentry.formats.symbol_names import printable
from fentry.formats.tracefile_reader import TraceReader

_METADATA = Template("""\
/* CTF 1.8 */

typealias integer { size = 8; align = 8; signed = false; } := uint8_t;
typealias integer { size = 32; align = 8; signed = false; } := uint32_t;
typealias integer { size = 64; align = 8; signed = false; } := uint64_t;
typealias integer { size = 64; align = 8; signed = false; base = hexadecimal; } := address_t;

trace {
    major = 1;
    minor = 8;
    uuid = "$trace_id";
    byte_order = le;
    packet.header := struct {
        uint32_t magic;
        uint8_t uuid[16];
        uint32_t stream_id;
    };
};

env {
$environment
};
$clock
$enumerations

stream {
    id = 0;
    packet.context := struct {
        $packet_moments
        uint64_t content_size;
        uint64_t packet_size;
        uint64_t packet_seq_num;
        uint64_t events_discarded;
        uint32_t cpu_id;
    };
    $event_moment
        uint32_t tid;
        enum comm comm;
    };
};

event {
    name = "function";
    id = 0;
    stream_id = 0;
    fields := struct {
        address_t ip;
        enum function function;$parents
    };
};
""")

# A clock that is absolute can be merged with those of other traces, whatever made them.
_CLOCK = Template("""
clock {
    name = monotonic;
    description = "CLOCK_MONOTONIC, and what CLOCK_REALTIME was ahead when recording began";
    freq = 1000000000;
    offset_s = $seconds;
    offset = $nanoseconds;
    absolute = TRUE;
};

typealias integer {
    size = 64; align = 8; signed = false;
    map = clock.monotonic.value;
} := time_t;
""")

_PACKET_TIMES = "time_t timestamp_begin;\n        time_t timestamp_end;"
_PACKET_COUNTS = "uint64_t first_count;\n        uint64_t last_count;"
_EVENT_TIME = (
    "event.header := struct {\n        time_t timestamp;\n    };\n    event.context := struct {"
)
# A field called `timestamp` would be taken for a time though there is no clock (8).
_EVENT_COUNT = "event.context := struct {\n        uint64_t count;"
_PARENTS = "\n        enum parent parent;\n        address_t parent_ip;"


def metadata(trace: TraceReader, trace_id: UUID, labels: Labels) -> str:
    """The file `metadata` of a trace whose events have these labels.

    The layout is that of PACKET in ctf, and EVENT in ctf_events if there are labels of parents.
    """
    times = trace.has_time
    return _METADATA.substitute(
        trace_id=trace_id,
        environment=_environment(trace),
        clock=_clock(trace) if times else "",
        enumerations="\n\n".join(_enumeration(*one) for one in labels.items()),
        packet_moments=_PACKET_TIMES if times else _PACKET_COUNTS,
        event_moment=_EVENT_TIME if times else _EVENT_COUNT,
        parents=_PARENTS if "parent" in labels else "",
    )


def _environment(trace: TraceReader) -> str:
    meta = trace.meta
    texts = {
        "tracer_name": "fentry",
        "fentry_version": meta.fentry_version,
        "exe": meta.exe,
        "hostname": meta.host,
        "kernel": meta.kernel,
        "clock": meta.clock,
    }
    lines = [
        f"    {key} = {_literal(text.encode('utf-8', 'replace'))};" for key, text in texts.items()
    ]
    return "\n".join([*lines, f"    pid = {meta.pid};", f"    stray_cpu = {meta.stray_cpu};"])


def _clock(trace: TraceReader) -> str:
    first = trace.clock.pairs[0]
    seconds, nanoseconds = divmod(first.realtime_ns - first.monotonic_ns, NS_PER_SECOND)
    return _CLOCK.substitute(seconds=seconds, nanoseconds=nanoseconds)


def _enumeration(name: str, labels: Sequence[Label]) -> str:
    lines = [f"    {_literal(label.name)} = {label.value}" for label in labels]
    return "enum " + name + " : uint32_t {\n" + ",\n".join(lines) + "\n};"


def _literal(name: bytes) -> str:
    text = printable(name).decode("utf-8", "replace")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
