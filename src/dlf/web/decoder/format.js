/** The container: magic, header, metadata, payload, checksum (docs/bitstream.md, section 1). */

import { crc32 } from "./checksums.js";
import { DlfError } from "./errors.js";
import { inflate } from "./inflate.js";
import { readPackets } from "./packets.js";

export const MAX_PIXELS = 2 ** 25; // as in Python
const MAX_SIDE = 2 ** 16;
const MAGIC = [0x44, 0x4c, 0x46];
const VERSION = 1;
const FLAG_METADATA = 1;
const FLAG_PACKETS = 2;
const KNOWN_FLAGS = FLAG_METADATA | FLAG_PACKETS; // but not both
const MAX_QUALITY = 100;
const MAX_VARINT_BYTES = 5;
const MAX_METADATA_BYTES = 2 ** 24;
export const CHECKSUM_BYTES = 4;
const TAGS = { 1: "icc", 2: "exif", 3: "xmp", 4: "dpi" };
const DPI_UNITS = 1000;

const ENDS_EARLY = "the data ends inside the header";
const NO_METADATA = { icc: null, exif: null, xmp: null, dpi: null };
const MALFORMED = "the metadata of the file is malformed";

/** Read an unsigned LEB128 number at `start`; returns [value, index of the byte after it]. */
export function varint(bytes, start) {
  let value = 0;
  for (let count = 0; count < MAX_VARINT_BYTES; count++) {
    const byte = bytes[start + count];
    if (byte === undefined) {
      throw new DlfError("format", ENDS_EARLY);
    }
    value += (byte & 0x7f) * 2 ** (7 * count); // up to 35 bits, which shifts do not have
    if (byte < 0x80) {
      if (byte === 0 && count > 0) {
        throw new DlfError("format", "a number in the header is written in more bytes than it needs");
      }
      return [value, start + count + 1];
    }
  }
  throw new DlfError("format", `a number in the header has more than ${MAX_VARINT_BYTES} bytes`);
}

/**
 * Read the header of a .dlf file; raises DlfError.
 *
 * Returns {version, model, quality, width, height, hasMetadata, hasPackets, headerBytes}.
 */
export function readHeader(bytes) {
  if (bytes.length === 0 || MAGIC.some((byte, i) => i < bytes.length && bytes[i] !== byte)) {
    throw new DlfError("format", "this is not a .dlf file");
  }
  if (bytes.length <= MAGIC.length) {
    throw new DlfError("format", ENDS_EARLY);
  }
  const [version, flags] = [bytes[3] >> 4, bytes[3] & 15];
  if (version !== VERSION) {
    throw new DlfError("version", `the file has format version ${version}, but this page reads version ${VERSION}`);
  }
  if (flags & ~KNOWN_FLAGS || flags === KNOWN_FLAGS) {
    throw new DlfError("version", `the file uses features that this page does not know (flags ${flags})`);
  }
  const [model, at] = varint(bytes, 4);
  const quality = bytes[at];
  if (quality === undefined) {
    throw new DlfError("format", ENDS_EARLY);
  }
  const [width, next] = varint(bytes, at + 1);
  const [height, headerBytes] = varint(bytes, next);
  if (quality > MAX_QUALITY) {
    throw new DlfError("format", `the quality is ${quality}, but must be 0 to ${MAX_QUALITY}`);
  }
  if (width < 1 || height < 1) {
    throw new DlfError("format", `the picture is ${width}x${height}, but each side must have at least one pixel`);
  }
  const [hasMetadata, hasPackets] = [FLAG_METADATA, FLAG_PACKETS].map((flag) => Boolean(flags & flag));
  return { version, model, quality, width, height, hasMetadata, hasPackets, headerBytes };
}

/**
 * Take a .dlf file apart; raises DlfError.
 *
 * Returns {header, metadata, packets, sizes}; packets: [{first, count, payload, checksum, sealed}], for a file of one
 * payload just that, with a count of null.  sealed: the bytes that the checksum covers.
 */
export async function readFile(bytes, maxPixels = MAX_PIXELS) {
  const header = readHeader(bytes);
  checkSize(header, maxPixels);
  if (header.hasPackets) {
    return { header, metadata: NO_METADATA, ...readPackets(bytes) };
  }
  const end = bytes.length - CHECKSUM_BYTES;
  let start = header.headerBytes;
  if (end < start) {
    throw new DlfError("format", "the data ends before the checksum");
  }
  let metadata = NO_METADATA;
  if (header.hasMetadata) {
    const [size, at] = varint(bytes.subarray(0, end), start);
    if (size > end - at) {
      throw new DlfError("format", "the metadata reaches beyond the end of the file");
    }
    metadata = await readMetadata(bytes.subarray(at, at + size));
    start = at + size;
  }
  const sizes = {
    headerBytes: header.headerBytes,
    metadataBytes: start - header.headerBytes,
    payloadBytes: end - start,
    checksumBytes: CHECKSUM_BYTES,
    fileBytes: bytes.length,
  };
  const packet = { first: 0, count: null, payload: bytes.subarray(start, end), ...seal(bytes) };
  return { header, metadata, packets: [packet], sizes };
}

/** Refuse a picture that is larger than the limits. */
function checkSize({ width, height }, maxPixels) {
  if (Math.max(width, height) > MAX_SIDE) {
    throw new DlfError("limit", `the picture is ${width}x${height}, but a side may have at most 65,536 pixels`);
  }
  if (width * height > maxPixels) {
    const most = maxPixels.toLocaleString("en");
    throw new DlfError("limit", `the picture is ${width}x${height}, above the limit of ${most} pixels`);
  }
}

/** Checksum of bytes that end in it, and what it covers. */
export function seal(bytes) {
  const end = bytes.length - CHECKSUM_BYTES;
  const checksum = new DataView(bytes.buffer, bytes.byteOffset, bytes.length).getUint32(end, true);
  return { checksum, sealed: bytes.subarray(0, end) };
}

/** Whether a packet is undamaged and of a model with these numerics, 64 hex digits. */
export function fits({ checksum, sealed }, numerics) {
  const key = Uint8Array.from(numerics.match(/../g), (digits) => Number.parseInt(digits, 16));
  return crc32(sealed, crc32(key)) === checksum;
}

/** Unpack ICC profile, EXIF, XMP (bytes or null) and resolution ([x, y] in dots per inch, or null). */
async function readMetadata(blob) {
  const raw = await inflate(blob, "deflate", MAX_METADATA_BYTES).catch((error) => {
    throw error instanceof DlfError
      ? new DlfError("limit", "the metadata of the file unfolds to more than 16 MiB")
      : new DlfError("format", "the metadata of the file is damaged, cut off or followed by other data");
  });
  const metadata = { ...NO_METADATA };
  let [at, last] = [0, 0];
  while (at < raw.length) {
    const tag = raw[at];
    const [size, from] = varint(raw, at + 1);
    at = from + size;
    if (!(tag in TAGS) || tag <= last || size === 0 || at > raw.length) {
      throw new DlfError("format", MALFORMED);
    }
    const part = raw.subarray(from, at);
    metadata[TAGS[tag]] = TAGS[tag] === "dpi" ? resolution(part) : part;
    last = tag;
  }
  if (last === 0) {
    throw new DlfError("format", "the file announces metadata but holds none");
  }
  return metadata;
}

function resolution(part) {
  const view = new DataView(part.buffer, part.byteOffset, part.length);
  const values = part.length === 8 ? [view.getUint32(0, true), view.getUint32(4, true)] : [0];
  if (values.includes(0)) {
    throw new DlfError("format", MALFORMED);
  }
  return values.map((value) => value / DPI_UNITS);
}
