/** Files of packets for lossy links (docs/bitstream.md, section 1.4); only whole ones are read. */

import { DlfError } from "./errors.js";
import { CHECKSUM_BYTES, fits, readHeader, seal, varint } from "./format.js";

const HEAD_BYTES = 64; // more than what stands before a payload

/** Take a file of packets apart: {packets: [{first, count, payload, checksum, sealed}], sizes}; raises DlfError. */
export function readPackets(bytes) {
  const packets = [];
  let [at, payloadBytes, start] = [0, 0, ""];
  while (at < bytes.length) {
    const head = bytes.subarray(at, at + HEAD_BYTES);
    const header = readHeader(head);
    const told = head.subarray(0, header.headerBytes).join();
    if (at > 0 && told !== start) {
      throw new DlfError("format", "the packets of the file are not of one picture");
    }
    start = told;
    const [first, next] = varint(head, header.headerBytes);
    const [count, then] = varint(head, next);
    const [size, from] = varint(head, then);
    const end = at + from + size + CHECKSUM_BYTES;
    if (end > bytes.length) {
      throw new DlfError("format", "the file ends inside a packet");
    }
    const payload = bytes.subarray(at + from, at + from + size);
    packets.push({ first, count, payload, ...seal(bytes.subarray(at, end)) });
    payloadBytes += size;
    at = end;
  }
  const checksumBytes = CHECKSUM_BYTES * packets.length;
  const headerBytes = bytes.length - payloadBytes - checksumBytes;
  return { packets, sizes: { headerBytes, metadataBytes: 0, payloadBytes, checksumBytes, fileBytes: bytes.length } };
}

/**
 * The parts that a whole picture is coded in: [{windows: [[top, bottom], [left, right]], payload}].
 *
 * file: as readFile returns it.  plan: of the whole picture.  Raises DlfError where a packet is damaged or missing.
 */
export function partsOf(file, plan, numerics) {
  const [rows, cols] = [plan.windowRows, plan.windowCols];
  if (!file.header.hasPackets) {
    return [{ windows: [[0, rows], [0, cols]], payload: file.packets[0].payload }];
  }
  let next = 0;
  const parts = file.packets.map((packet, i) => {
    if (!fits(packet, numerics)) {
      const which = `packet ${i + 1} of ${file.packets.length}`;
      throw new DlfError("checksum", `the checksum of ${which} does not match`);
    }
    if (packet.first !== next) {
      throw incomplete();
    }
    next += packet.count;
    return { windows: placeOf(packet, rows, cols), payload: packet.payload };
  });
  if (next !== rows * cols) {
    throw incomplete();
  }
  return parts;
}

const incomplete = () => new DlfError("format", "packets of the file are missing, or come twice or out of order");

/** Rows and columns of a packet's windows: they lie in one row, or they are whole rows. */
function placeOf({ first, count }, rows, cols) {
  const [row, col] = [Math.floor(first / cols), first % cols];
  if (count >= 1 && col + count <= cols && row < rows) {
    return [[row, row + 1], [col, col + count]];
  }
  if (count >= 1 && col === 0 && count % cols === 0 && row + count / cols <= rows) {
    return [[row, row + count / cols], [0, cols]];
  }
  throw new DlfError("format", "a packet of the file holds windows that are no part of the picture");
}
