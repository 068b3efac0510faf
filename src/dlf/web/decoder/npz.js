/** Reads .npz files: zip archives of numpy arrays, stored or deflated, no pickled objects. */

import { DlfError } from "./errors.js";
import { inflate } from "./inflate.js";

const MAX_UNFOLDED_BYTES = 2 ** 27; // of one array
const END_OF_DIRECTORY = 0x06054b50;
const DIRECTORY_ENTRY = 0x02014b50;
const LOCAL_ENTRY = 0x04034b50;
const [STORED, DEFLATED] = [0, 8];
const TYPES = {
  "|u1": Uint8Array,
  "<u4": Uint32Array,
  "<i2": Int16Array,
  "<i4": Int32Array,
  "<i8": BigInt64Array,
};

const unreadable = () => new DlfError("bundle", "the model's probability tables cannot be read");

/** Return the arrays by name: {name: {dims, data}}, data a typed array; raises DlfError. */
export async function readNpz(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const arrays = {};
  try {
    for (const entry of directory(view)) {
      const name = new TextDecoder().decode(bytes.subarray(entry.name, entry.name + entry.nameBytes));
      arrays[name.replace(/\.npy$/, "")] = readNpy(await unfold(bytes, view, entry));
    }
  } catch {
    throw unreadable();
  }
  return arrays;
}

function* directory(view) {
  let end = view.byteLength - 22;
  while (view.getUint32(end, true) !== END_OF_DIRECTORY) {
    end--; // past a comment; reading before the start throws
  }
  let at = view.getUint32(end + 16, true);
  for (let i = view.getUint16(end + 10, true); i > 0; i--) {
    if (view.getUint32(at, true) !== DIRECTORY_ENTRY) {
      throw unreadable();
    }
    const [nameBytes, extra, comment] = [28, 30, 32].map((offset) => view.getUint16(at + offset, true));
    yield {
      method: view.getUint16(at + 10, true),
      packedBytes: view.getUint32(at + 20, true),
      start: view.getUint32(at + 42, true),
      name: at + 46,
      nameBytes,
    };
    at += 46 + nameBytes + extra + comment;
  }
}

async function unfold(bytes, view, { method, packedBytes, start }) {
  if (view.getUint32(start, true) !== LOCAL_ENTRY) {
    throw unreadable();
  }
  const from = start + 30 + view.getUint16(start + 26, true) + view.getUint16(start + 28, true);
  const packed = bytes.subarray(from, from + packedBytes);
  if (method === STORED) {
    return packed;
  }
  if (method !== DEFLATED) {
    throw unreadable();
  }
  return inflate(packed, "deflate-raw", MAX_UNFOLDED_BYTES);
}

function readNpy(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const long = bytes[6] > 1; // version of the form
  const start = long ? 12 : 10;
  const end = start + (long ? view.getUint32(8, true) : view.getUint16(8, true));
  const header = new TextDecoder().decode(bytes.subarray(start, end));
  const [, type] = header.match(/'descr': '([^']+)'/);
  const [, shape] = header.match(/'shape': \(([^)]*)\)/);
  const dims = shape.split(",").filter((part) => part.trim()).map(Number);
  const count = dims.reduce((product, n) => product * n, 1);
  if (!header.includes("'fortran_order': False")) {
    throw unreadable();
  }
  const size = count * TYPES[type].BYTES_PER_ELEMENT;
  if (bytes.length !== end + size) {
    throw unreadable();
  }
  return { dims, data: new TYPES[type](bytes.slice(end).buffer) };
}
