/** Probability tables of a model (docs/bitstream.md, section 5). */

import { DlfError } from "./errors.js";
import { readNpz } from "./npz.js";
import { FrequencyTable } from "./range.js";

const TOTAL = 2 ** 16;
const QUALITIES = 101;
const OPTIONS = { mean_unit: 16, step_unit: 64, padding: 32, symbol_sum: 0, token_prior: 0 };
const SHAPES = {
  token_frequency: [Uint32Array, 2],
  token_count: [Uint8Array, 1],
  gaussian_frequency: [Uint32Array, 2],
  scale_bounds: [Int32Array, 1],
  prior: [Int16Array, 2],
};

/**
 * Read tables.npz; raises DlfError where it breaks a promise of the format.
 *
 * Returns {token, gaussian: FrequencyTable[], tokenCount, bounds, limit, prior(quality), meanUnit, stepUnit,
 * padding, symbolSum, tokenPrior}; limit: largest magnitude of a detail symbol that needs no escape.
 */
export async function readTables(bytes) {
  const arrays = await readNpz(bytes);
  for (const [name, [type, axes]] of Object.entries(SHAPES)) {
    check(arrays[name]?.data instanceof type && arrays[name].dims.length === axes, `${name} is missing or wrong`);
  }
  const known = new Set([...Object.keys(SHAPES), ...Object.keys(OPTIONS)]);
  const other = Object.keys(arrays).filter((name) => !known.has(name));
  check(other.length === 0, `this page does not know ${other.join(", ")}`);
  const option = (name) => Number(arrays[name]?.data[0] ?? OPTIONS[name]);
  const [scales, columns] = arrays.gaussian_frequency.dims;
  const bounds = arrays.scale_bounds.data;
  check(columns >= 4 && columns % 2 === 0, "gaussian_frequency has an odd number of columns");
  check(bounds.length === scales - 1, "scale_bounds does not fit gaussian_frequency");
  check(bounds.every((bound, i) => i === 0 || bound > bounds[i - 1]), "scale_bounds does not ascend");
  const tokenCount = arrays.token_count.data;
  check(tokenCount.length === QUALITIES, "token_count has a wrong length");
  check(tokenCount.every((count) => count <= arrays.token_frequency.dims[0]), "token_count is too large");
  const [qualities, inputs] = arrays.prior.dims;
  check(qualities === QUALITIES, "prior has a wrong length");
  return {
    token: frequencyTables(arrays.token_frequency, "token_frequency"),
    gaussian: frequencyTables(arrays.gaussian_frequency, "gaussian_frequency"),
    tokenCount,
    bounds,
    limit: columns / 2 - 1,
    prior: (quality) => arrays.prior.data.subarray(quality * inputs, (quality + 1) * inputs),
    meanUnit: option("mean_unit"),
    stepUnit: option("step_unit"),
    padding: option("padding"),
    symbolSum: option("symbol_sum") === 1,
    tokenPrior: option("token_prior") === 1,
  };
}

function frequencyTables({ dims: [rows, columns], data }, name) {
  return Array.from({ length: rows }, (_, row) => {
    const frequency = data.subarray(row * columns, (row + 1) * columns);
    const sum = frequency.reduce((total, n) => total + n, 0);
    check(sum === TOTAL && !frequency.includes(0), `a row of ${name} has a zero or does not sum to ${TOTAL}`);
    return new FrequencyTable(frequency);
  });
}

function check(condition, what) {
  if (!condition) {
    throw new DlfError("bundle", `the model's probability tables are wrong: ${what}`);
  }
}
