/** Running the networks over pictures of any size in bounded memory (dlf/codec/tiling.py). */

import { CELL, covered, cutPlanes, cutTokens, putPlanes, tileSpans, WINDOW_PIXELS } from "./geometry.js";

const FADE = 2 * CELL; // pixels over which one tile fades into the next, centred on the border of their cores

/** Parameters of the first step for a whole picture; tiled where the prior network reads the tokens. */
export async function priorOf(networks, tables, plan, tokens, quality) {
  const [rows, cols] = [tileSpans(plan.height), tileSpans(plan.width)];
  if (!tables.tokenPrior || rows.length * cols.length === 1) {
    return networks.prior(plan.rows, plan.cols, quality, tokens);
  }
  let whole = null;
  for (const row of rows) {
    for (const col of cols) {
      const [cells, seen] = [cellsOf(row.seen, col.seen), tokensOf(plan, tables, tokens, row, col)];
      const tile = await networks.prior(...sizeOf(cells), quality, seen);
      const [channels] = tile.dims;
      if (whole === null) {
        const size = channels * plan.rows * plan.cols;
        whole = { dims: [channels, plan.rows, plan.cols], common: new Float32Array(size) };
        for (const name of ["scale", "mean", "step"]) {
          whole[name] = new Int32Array(size);
        }
      }
      const here = cellsOf(row.core, col.core);
      const there = here.map((range, axis) => range.map((cell) => cell - cells[axis][0]));
      for (const name of ["scale", "mean", "step", "common"]) {
        putPlanes(whole[name], whole.dims, here, cutPlanes(tile[name], tile.dims, there));
      }
    }
  }
  return whole;
}

/**
 * Paint the padded picture: {height, width, data: Uint8Array (height, width, 3)}.
 *
 * yHat: Float32Array (channels, plan.rows, plan.cols).  report: called with tiles done, their number, and
 * the tile: {top, left, height, width, data}.
 */
export async function synthesise(networks, tables, plan, tokens, yHat, quality, report = () => {}) {
  const [rows, cols] = [tileSpans(plan.height), tileSpans(plan.width)];
  const dims = [yHat.length / (plan.rows * plan.cols), plan.rows, plan.cols];
  let done = 0;
  const paint = async (row, col) => {
    const cells = cellsOf(row.seen, col.seen);
    const [height, width] = sizeOf(cells);
    const seen = tokensOf(plan, tables, tokens, row, col);
    const data = await networks.synthesise(seen, cutPlanes(yHat, dims, cells), height, width, quality);
    const tile = { height: height * CELL, width: width * CELL, data };
    report(++done, rows.length * cols.length, { top: row.seen[0], left: col.seen[0], ...tile });
    return tile;
  };
  return join(rows, 0, (row) => join(cols, 1, (col) => paint(row, col)));
}

const cellsOf = (down, across) => [covered(down, CELL), covered(across, CELL)];
const sizeOf = ([[top, bottom], [left, right]]) => [bottom - top, right - left];

function tokensOf(plan, tables, tokens, row, col) {
  const windows = [covered(row.seen, WINDOW_PIXELS), covered(col.seen, WINDOW_PIXELS)];
  return cutTokens(tokens, plan.windowCols, tables.token.length, windows);
}

/** Paint the tiles along one axis, 0 down or 1 across, and fade each into the one before. */
async function join(spans, axis, paint) {
  const first = await paint(spans[0]);
  if (spans.length === 1) {
    return first;
  }
  const length = spans.at(-1).seen[1];
  const canvas = axis === 0 ? { ...first, height: length } : { ...first, width: length };
  canvas.data = new Uint8Array(canvas.height * canvas.width * 3);
  fade(canvas, first, axis, 0, 0, 0);
  for (const span of spans.slice(1)) {
    fade(canvas, await paint(span), axis, span.core[0] - FADE / 2, span.seen[0], FADE);
  }
  return canvas;
}

/**
 * Put a tile whose first pixel lies at `origin` of the canvas over it, from `start` on.
 *
 * What the tile before painted beyond the first `width` of these pixels is overwritten.
 */
function fade(canvas, tile, axis, start, origin, width) {
  for (let y = axis === 0 ? start - origin : 0; y < tile.height; y++) {
    for (let x = axis === 1 ? start - origin : 0; x < tile.width; x++) {
      const [row, col] = axis === 0 ? [y + origin, x] : [y, x + origin];
      const place = (axis === 0 ? row : col) - start;
      const [into, from] = [3 * (row * canvas.width + col), 3 * (y * tile.width + x)];
      const weight = place < width ? (place + 0.5) / width : 1;
      for (let i = 0; i < 3; i++) {
        canvas.data[into + i] = roundToEven(
          canvas.data[into + i] * (1 - weight) + tile.data[from + i] * weight,
        );
      }
    }
  }
}

function roundToEven(value) {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 === 1 ? rounded - 1 : rounded;
}
