// Perfetto's trace_processor, in the form it has for the browser, answering SQL over traces.
//
// node trace_processor.cjs FOLDER: reads lines {"trace": path, "queries": [sql, ...]} and answers
// each with one line, an array of the rows of every query.  FOLDER holds engine_bundle.js, a web
// worker that speaks TraceProcessorRpc (perfetto: protos/perfetto/trace_processor/
// trace_processor.proto) over a message port, and trace_processor.wasm beside it.
"use strict";
const fs = require("fs");
const path = require("path");
const readline = require("readline");
const vm = require("vm");

const APPEND = 1, FINALIZE = 2, QUERY = 3, RESET = 11; // TraceProcessorMethod
const REQUEST = 2, APPEND_DATA = 101, QUERY_ARGS = 103; // fields of TraceProcessorRpc
const FATAL = 5, APPEND_RESULT = 201, QUERY_RESULT = 203, FINALIZE_RESULT = 212;
const CHUNK_BYTES = 16 << 20; // the worker takes 32 MB at once

const folder = process.argv[2];
let replies = [];
const port = { postMessage: (bytes) => replies.push(Buffer.from(bytes)) };

// What the worker needs of a browser: its scope, its address, and the files of its server.
function becomeWorker() {
  process.type = "renderer"; // it was not built for node and refuses it
  globalThis.self = globalThis;
  globalThis.WorkerGlobalScope = class {};
  globalThis.location = { href: "http://localhost/engine_bundle.js" };
  globalThis.XMLHttpRequest = class {
    open(method, name) { this.name = name; }
    send() { this.response = fs.readFileSync(path.join(folder, path.basename(this.name))); }
  };
  console.log = console.error; // standard output is for answers
  vm.runInThisContext(fs.readFileSync(path.join(folder, "engine_bundle.js"), "utf8"));
}

function varint(value) {
  const bytes = [];
  for (; value > 127; value = Math.floor(value / 128)) bytes.push((value % 128) | 128);
  return Buffer.from([...bytes, value]);
}

const number = (field, value) => Buffer.concat([varint(field * 8), varint(value)]);
const bytes = (field, value) =>
  Buffer.concat([varint(field * 8 + 2), varint(value.length), value]);

// The fields of a message: [number, value], the value a BigInt or a Buffer.
function* fields(message) {
  let at = 0;
  const next = () => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = message[at++];
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return value;
    }
  };
  while (at < message.length) {
    const tag = Number(next());
    if (tag % 8 === 0) {
      yield [tag >>> 3, next()];
      continue;
    }
    const length = tag % 8 === 1 ? 8 : tag % 8 === 5 ? 4 : Number(next());
    yield [tag >>> 3, message.subarray(at, (at += length))];
  }
}

function call(method, ...parts) {
  replies = [];
  const message = Buffer.concat([number(REQUEST, method), ...parts]);
  port.onmessage({ data: new Uint8Array(bytes(1, message)) });
  const found = [];
  for (const [, reply] of fields(Buffer.concat(replies))) {
    for (const [field, value] of fields(reply)) {
      if (field === FATAL) throw new Error(value.toString());
      if ([APPEND_RESULT, QUERY_RESULT, FINALIZE_RESULT].includes(field)) found.push(value);
    }
  }
  return found;
}

function load(name) {
  call(RESET);
  const file = fs.openSync(name);
  const chunk = Buffer.alloc(CHUNK_BYTES);
  for (let read; (read = fs.readSync(file, chunk)); ) {
    refuse(call(APPEND, bytes(APPEND_DATA, chunk.subarray(0, read))));
  }
  fs.closeSync(file);
  refuse(call(FINALIZE));
}

function refuse(results) {
  for (const result of results) {
    for (const [field, value] of fields(result)) {
      if (field === 2) throw new Error(value.toString());
    }
  }
}

function* varints(packed) {
  let value = 0n, shift = 0n;
  for (const byte of packed) {
    value |= BigInt(byte & 127) << shift;
    shift += 7n;
    if (byte > 127) continue;
    yield BigInt.asIntN(64, value);
    value = shift = 0n;
  }
}

// Values of a CellsBatch in order, as JSON: integers keep all their digits.
function cells(batch) {
  let kinds = [], integers = [], floats = [], texts = [];
  for (const [field, value] of fields(batch)) {
    if (field === 1) kinds = [...value];
    if (field === 2) integers = [...varints(value)];
    if (field === 3) floats = value;
    if (field === 5) texts = value.toString().split("\0");
  }
  const nextOf = {
    1: () => "null",
    2: () => String(integers.shift()),
    3: () => { const value = floats.readDoubleLE(); floats = floats.subarray(8); return value; },
    4: () => JSON.stringify(texts.shift()),
  };
  return kinds.map((kind) => nextOf[kind]());
}

function query(sql) {
  let width = 0, values = [];
  for (const result of call(QUERY, bytes(QUERY_ARGS, bytes(1, Buffer.from(sql))))) {
    for (const [field, value] of fields(result)) {
      if (field === 1) width++;
      if (field === 2) throw new Error(value.toString());
      if (field === 3) values = values.concat(cells(value));
    }
  }
  const rows = [];
  for (let at = 0; at < values.length; at += width) {
    rows.push(`[${values.slice(at, at + width).join()}]`);
  }
  return `[${rows.join()}]`;
}

becomeWorker();
onmessage({ data: port });
setTimeout(async () => {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const asked = JSON.parse(line);
    load(asked.trace);
    fs.writeSync(1, `[${asked.queries.map(query).join()}]\n`);
  }
});
