/** The walk through the symbols (docs/bitstream.md, section 3): tokens first, then details in four steps. */

import { bytesOf, crc32 } from "./checksums.js";
import { DlfError } from "./errors.js";

export const STEPS = 4;
const MAX_SYMBOL = 2 ** 15;
const UNSENT = 1; // symbols of the tables below are 0 and not sent
const NOT_SENT = -1;

// row and column in a block of 2x2 cells, of each step and group of channels
const POSITION = [
  [[0, 0], [0, 1], [1, 0], [1, 1]],
  [[1, 1], [1, 0], [0, 1], [0, 0]],
  [[1, 0], [1, 1], [0, 0], [0, 1]],
  [[0, 1], [0, 0], [1, 1], [1, 0]],
];

/** Read the tokens: Int32Array (windows, tokens), -1 where not sent; counts: how many each window sends. */
export function readTokens(decoder, counts, tables) {
  const places = tables.token.length;
  const tokens = new Int32Array(counts.length * places).fill(NOT_SENT);
  for (let place = 0; place < places; place++) {
    for (let window = 0; window < counts.length; window++) {
      if (counts[window] > place) {
        tokens[window * places + place] = decoder.symbol(tables.token[place]);
      }
    }
  }
  return tokens;
}

/**
 * Read the details, and the checksum of the symbols where the model has one.
 *
 * prior: {scale, mean, step: Int32Array, common, dims} of the prior network, dims = [channels, rows, cols].
 * context: async (index, yHat, common) -> {scale, mean}, for the later steps.
 * report: called after each step with the number of steps done.
 * Returns {yHat: Float32Array dims, symbols: Int32Array[], one for each step}.
 */
export async function readDetails(decoder, tokens, prior, context, tables, report = () => {}) {
  const { step: size, common, dims } = prior;
  const yHat = new Int32Array(size.length);
  const parts = [];
  let { scale, mean } = prior;
  for (let step = 0; step < STEPS; step++) {
    if (step > 0) {
      ({ scale, mean } = await context(step - 1, yHat, common));
    }
    const places = placesOf(step, dims);
    const symbols = readStep(decoder, places, scale, tables);
    for (let i = 0; i < places.length; i++) {
      yHat[places[i]] = symbols[i] * tables.meanUnit + mean[places[i]];
    }
    parts.push(symbols);
    report(step + 1);
  }
  if (tables.symbolSum) {
    checkSum(decoder, [tokens, ...parts]);
  }
  const unit = tables.meanUnit * tables.stepUnit;
  return { yHat: Float32Array.from(yHat, (value, i) => value * (size[i] / unit)), symbols: parts };
}

/** Flat indices of the places of a step, in the order (channel, row, column). */
export function placesOf(step, [channels, rows, cols]) {
  const places = [];
  for (let channel = 0; channel < channels; channel++) {
    const [top, left] = POSITION[step][Math.floor((4 * channel) / channels)];
    for (let row = top; row < rows; row += 2) {
      for (let col = left; col < cols; col += 2) {
        places.push((channel * rows + row) * cols + col);
      }
    }
  }
  return Int32Array.from(places);
}

/** Number of bounds <= scale. */
function tableOf(scale, bounds) {
  let [low, high] = [0, bounds.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (bounds[middle] <= scale) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

/** Read the symbols of a step, in the order of its places: table by table, then what lies beyond the tables. */
function readStep(decoder, places, scale, tables) {
  const index = Int16Array.from(places, (place) => tableOf(scale[place], tables.bounds));
  const members = tables.gaussian.map(() => []);
  index.forEach((table, i) => members[table].push(i));
  const symbols = new Int32Array(places.length);
  const escapes = [];
  for (let table = UNSENT; table < members.length; table++) {
    for (const i of members[table]) {
      symbols[i] = decoder.symbol(tables.gaussian[table]) - tables.limit;
      if (symbols[i] > tables.limit) {
        escapes.push(i);
      }
    }
  }
  for (const i of escapes) {
    symbols[i] = readLarge(decoder, tables.limit);
  }
  return symbols;
}

/** A sign bit, then |symbol| - limit as Elias gamma code. */
function readLarge(decoder, limit) {
  const negative = decoder.bit();
  let length = 0; // bits after the leading one
  while (!decoder.bit()) {
    length++;
    if (2 ** length > MAX_SYMBOL) {
      throw tooLarge();
    }
  }
  let excess = 1;
  for (let i = 0; i < length; i++) {
    excess = 2 * excess + decoder.bit();
  }
  if (excess + limit > MAX_SYMBOL) {
    throw tooLarge();
  }
  return negative ? -(excess + limit) : excess + limit;
}

const tooLarge = () => new DlfError("format", "the coded data are damaged: a detail symbol is too large");

function checkSum(decoder, arrays) {
  const crc = arrays.reduce((before, array) => crc32(bytesOf(array), before), 0);
  for (let shift = 0; shift < 32; shift += 8) {
    if (decoder.byte() !== ((crc >>> shift) & 0xff)) {
      throw new DlfError("checksum", "the symbols decoded here are not those that were encoded");
    }
  }
}
