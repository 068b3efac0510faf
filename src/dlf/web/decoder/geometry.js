/** Shape arithmetic: padding, cells, windows, attention plans, tiles (dlf/geometry.py). */

export const PATCH = 16;
export const CELL = 32;
export const WINDOW = 16; // patches
export const WINDOW_PIXELS = WINDOW * PATCH;
export const WINDOW_CELLS = WINDOW_PIXELS / CELL;

export const ceilDiv = (a, b) => Math.ceil(a / b);

/** Grids of a picture that is padded right and bottom to multiples of `unit` pixels. */
export class Plan {
  constructor(height, width, unit = CELL) {
    this.height = ceilDiv(height, unit) * unit; // padded
    this.width = ceilDiv(width, unit) * unit;
    this.rows = this.height / CELL; // cells
    this.cols = this.width / CELL;
    this.windowRows = ceilDiv(this.height, WINDOW_PIXELS);
    this.windowCols = ceilDiv(this.width, WINDOW_PIXELS);
  }

  /** Tokens each window sends when a full one sends `tokens`: its share of patches, rounded up. */
  tokenCounts(tokens) {
    const inside = (cells, i) => Math.min(WINDOW, 2 * cells - WINDOW * i);
    const counts = [];
    for (let row = 0; row < this.windowRows; row++) {
      for (let col = 0; col < this.windowCols; col++) {
        counts.push(ceilDiv(inside(this.rows, row) * inside(this.cols, col) * tokens, WINDOW * WINDOW));
      }
    }
    return counts;
  }
}

/** One axis of a window plan: grid index and region of each place, and slot of each place of a window. */
function axis(size, window, wantedShift) {
  const length = Math.min(size, window);
  const count = ceilDiv(size, length);
  const shift = count === 1 && size < window ? 0 : wantedShift;
  const total = count * length;
  const index = Array.from({ length: total }, (_, place) => (place + shift) % total);
  // places that the shift carried round the edge are not neighbours of the rest
  const region = index.map((i, place) => (i >= size ? -1 : Number(place >= total - shift)));
  return { length, count, index: index.map((i) => (i >= size ? 0 : i)), region };
}

/**
 * Index maps that cut a grid into windows of `window` x `window`, cyclically shifted up and left by `shift`, and
 * put it together again; see dlf.geometry.window_plan.
 *
 * Returns {gather, region, slot, scatter}, each {dims, data: BigInt64Array}.
 */
export function windowPlan(rows, cols, window, shift = 0) {
  const [down, across] = [axis(rows, window, shift), axis(cols, window, shift)];
  const [windows, places] = [down.count * across.count, down.length * across.length];
  const gather = new BigInt64Array(windows * places);
  const region = new BigInt64Array(windows * places).fill(-1n);
  const scatter = new BigInt64Array(rows * cols);
  let at = 0;
  for (let i = 0; i < down.count; i++) {
    for (let j = 0; j < across.count; j++) {
      for (let y = i * down.length; y < (i + 1) * down.length; y++) {
        for (let x = j * across.length; x < (j + 1) * across.length; x++, at++) {
          if (down.region[y] >= 0 && across.region[x] >= 0) {
            const place = down.index[y] * cols + across.index[x];
            gather[at] = BigInt(place);
            region[at] = BigInt(2 * down.region[y] + across.region[x]);
            scatter[place] = BigInt(at);
          }
        }
      }
    }
  }
  const slot = BigInt64Array.from({ length: places }, (_, place) =>
    BigInt(Math.floor(place / across.length) * window + (place % across.length)),
  );
  return {
    gather: { dims: [windows, places], data: gather },
    region: { dims: [windows, places], data: region },
    slot: { dims: [places], data: slot },
    scatter: { dims: [rows, cols], data: scatter },
  };
}

export const CORE = 4 * WINDOW_PIXELS; // pixels of a side that a tile is responsible for
const HALO = WINDOW_PIXELS; // pixels on every side that it sees besides

/** Cut `size` padded pixels into tiles: [{core: [from, to], seen: [from, to]}, ...], in pixels. */
export function tileSpans(size) {
  if (size <= CORE + 2 * HALO) {
    return [{ core: [0, size], seen: [0, size] }];
  }
  const [windows, count] = [ceilDiv(size, WINDOW_PIXELS), ceilDiv(size, CORE)];
  const cut = (i) => Math.min(size, Math.floor((windows * i) / count) * WINDOW_PIXELS);
  return Array.from({ length: count }, (_, i) => {
    const [from, to] = [cut(i), cut(i + 1)];
    return { core: [from, to], seen: [Math.max(0, from - HALO), Math.min(size, to + HALO)] };
  });
}

/**
 * Cut a part out of channels of rows of cols: planes (channels, rows, cols) -> (channels, height, width).
 *
 * part: [[top, bottom], [left, right]].
 */
export function cutPlanes(planes, [channels, rows, cols], [[top, bottom], [left, right]]) {
  const [height, width] = [bottom - top, right - left];
  const cut = new planes.constructor(channels * height * width);
  for (let channel = 0; channel < channels; channel++) {
    for (let row = 0; row < height; row++) {
      const from = (channel * rows + top + row) * cols + left;
      cut.set(planes.subarray(from, from + width), (channel * height + row) * width);
    }
  }
  return cut;
}

/** Put (channels, height, width) into the place `part` of planes (channels, rows, cols). */
export function putPlanes(planes, [channels, rows, cols], [[top, bottom], [left, right]], values) {
  const [height, width] = [bottom - top, right - left];
  for (let channel = 0; channel < channels; channel++) {
    for (let row = 0; row < height; row++) {
      const from = (channel * height + row) * width;
      planes.set(values.subarray(from, from + width), (channel * rows + top + row) * cols + left);
    }
  }
}

/** Tokens (windows down, windows across, count) of a part of the windows. */
export function cutTokens(tokens, across, count, [[top, bottom], [left, right]]) {
  const cut = new Int32Array((bottom - top) * (right - left) * count);
  for (let row = top; row < bottom; row++) {
    const from = (row * across + left) * count;
    cut.set(tokens.subarray(from, from + (right - left) * count), (row - top) * (right - left) * count);
  }
  return cut;
}

/** Put the tokens of a part of the windows into those of all. */
export function putTokens(tokens, across, count, [[top, bottom], [left, right]], values) {
  const length = (right - left) * count;
  for (let row = top; row < bottom; row++) {
    tokens.set(values.subarray((row - top) * length, (row - top + 1) * length), (row * across + left) * count);
  }
}

/** The windows or cells that a range of pixels covers. */
export const covered = ([from, to], unit) => [from / unit, ceilDiv(to, unit)];
