/** Range decoder for integer symbols under integer frequencies (docs/bitstream.md, section 2). */

import { DlfError } from "./errors.js";

const FREQUENCY_BITS = 16;
const TOTAL = 2 ** FREQUENCY_BITS;

/** Frequencies of the symbols 0, 1, ..., each at least 1, with sum 2^16; ready to be searched. */
export class FrequencyTable {
  constructor(frequency) {
    this.size = frequency.length;
    this.below = new Uint32Array(this.size + 1);
    for (let i = 0; i < this.size; i++) {
      this.below[i + 1] = this.below[i] + frequency[i];
    }
  }

  /** The symbol whose share holds a number in 0..2^16-1. */
  symbolAt(quantile) {
    let [low, high] = [0, this.size];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (this.below[middle] <= quantile) {
        low = middle;
      } else {
        high = middle;
      }
    }
    return low;
  }
}

const BIT = new FrequencyTable([TOTAL / 2, TOTAL / 2]);
const BYTE = new FrequencyTable(new Uint32Array(256).fill(TOTAL / 256));

/** Reads symbols from a payload, which endless zeros follow. */
export class RangeDecoder {
  #payload;
  #at = 8;
  #point; // minus the lower end of the interval
  #range = 2n ** 64n - 1n;

  constructor(payload) {
    this.#payload = payload;
    this.#point = (BigInt(this.#word(0)) << 32n) | BigInt(this.#word(4));
    /** Information content of all symbols so far, in bits. */
    this.bits = 0;
  }

  #word(at) {
    const byte = (i) => this.#payload[at + i] ?? 0;
    return ((byte(0) << 24) | (byte(1) << 16) | (byte(2) << 8) | byte(3)) >>> 0;
  }

  /** Read one symbol; raises DlfError on data that nothing encodes to. */
  symbol(table) {
    const scale = this.#range >> 24n;
    const share = this.#point / scale;
    if (share >= 1n << 24n) {
      throw new DlfError("format", "the coded data are damaged");
    }
    const symbol = table.symbolAt(Number(share) >>> 8);
    const below = table.below[symbol];
    const frequency = table.below[symbol + 1] - below;
    this.#point -= scale * BigInt(below << 8);
    this.#range = scale * BigInt(frequency << 8);
    if (this.#range < 1n << 32n) {
      this.#point = (this.#point << 32n) | BigInt(this.#word(this.#at));
      this.#range <<= 32n;
      this.#at += 4;
    }
    this.bits += FREQUENCY_BITS - Math.log2(frequency);
    return symbol;
  }

  bit() {
    return this.symbol(BIT);
  }

  byte() {
    return this.symbol(BYTE);
  }

  /**
   * Check after the last symbol that the payload is the shortest that decodes to them, the lowest of these.
   *
   * The interval is [P - point, P - point + range), where P is the payload up to where it has been read.
   */
  finish() {
    const size = this.#payload.length;
    const unread = this.#at - size;
    let canonical = unread >= 0;
    if (canonical && size > 0) {
      const unit = 1n << BigInt(8 * unread); // of the last byte
      const last = BigInt(this.#payload[size - 1]) * unit;
      const lowest = this.#point < unit;
      const shorterBelow = last <= this.#point;
      const shorterAbove = this.#point - last + (unit << 8n) < this.#range;
      canonical = lowest && !shorterBelow && !shorterAbove;
    }
    if (!canonical) {
      throw new DlfError("format", "the coded data are damaged, cut off or followed by something else");
    }
  }
}
