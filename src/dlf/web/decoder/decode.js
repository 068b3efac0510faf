/** Bytes of a .dlf file -> pixels, wherever JavaScript runs; the worker and the tests call this. */

import { explain } from "./errors.js";
import { MAX_PIXELS, readFile } from "./format.js";
import { CELL, Plan, putPlanes, putTokens, WINDOW_CELLS } from "./geometry.js";
import { Models } from "./models.js";
import { Networks } from "./networks.js";
import { partsOf } from "./packets.js";
import { RangeDecoder } from "./range.js";
import { priorOf, synthesise } from "./tiles.js";
import { readDetails, readTokens, STEPS } from "./walk.js";

/**
 * A decoder whose models are loaded once, when first needed.
 *
 * getOrt: gives the module of onnxruntime-web, a promise.
 * fetchFile: gives the bytes of a file of the site by its path ("models/index.json"), a promise of Uint8Array.
 */
export class Decoder {
  #getOrt;
  #models;
  #networks = new Map();

  constructor(getOrt, fetchFile) {
    this.#getOrt = getOrt;
    this.#models = new Models(fetchFile);
  }

  /**
   * Read the symbols, without painting; raises DlfError.
   *
   * bytes: Uint8Array.  report: called with {stage, done, total}.
   * Returns {plan, networks, tables, tokens: Int32Array, yHat: Float32Array, symbols: Int32Array[], info}.
   */
  async receive(bytes, { maxPixels = MAX_PIXELS, report = () => {} } = {}) {
    const clock = stopwatch();
    const file = await readFile(bytes, maxPixels);
    const model = await this.#models.writerOf(file);
    const tables = await model.tables();
    const networks = await this.#ready(model, tables, report);
    const loaded = clock();

    const { header } = file;
    const plan = new Plan(header.height, header.width, tables.padding);
    const parts = partsOf(file, plan, model.manifest.numerics);
    const { channels, tokens: places } = model.manifest;
    const dims = [channels, plan.rows, plan.cols];
    const whole = {
      tokens: new Int32Array(plan.windowRows * plan.windowCols * places),
      yHat: new Float32Array(channels * plan.rows * plan.cols),
      symbols: [],
    };
    const bits = { tokenBits: 0, detailBits: 0 };
    for (const [i, { windows, payload }] of parts.entries()) {
      const cells = windows.map((range, axis) =>
        range.map((window) => Math.min(WINDOW_CELLS * window, dims[1 + axis])),
      );
      const own = new Plan(...cells.map(([from, to]) => CELL * (to - from)));
      const told = (done) => report({ stage: "symbols", done: STEPS * i + done, total: STEPS * parts.length });
      const read = await readPart(payload, own, header.quality, networks, tables, told);
      putTokens(whole.tokens, plan.windowCols, places, windows, read.tokens);
      putPlanes(whole.yHat, dims, cells, read.yHat);
      whole.symbols.push(...read.symbols);
      bits.tokenBits += read.tokenBits;
      bits.detailBits += read.detailBits;
    }
    const info = {
      ...header,
      ...file.sizes,
      modelName: model.manifest.name,
      ...bits,
      metadata: file.metadata,
      milliseconds: { model: loaded, symbols: clock() },
    };
    return { plan, networks, tables, ...whole, info };
  }

  /**
   * Decode to {width, height, rgba: Uint8ClampedArray, info}; arguments and errors as of `receive`.
   *
   * tiles: whether reports of the painting shall hold what each tile shows, {top, left, width, height, rgba}, where
   * there are several.
   */
  async decode(bytes, { maxPixels = MAX_PIXELS, report = () => {}, tiles = false } = {}) {
    try {
      const { plan, networks, tables, tokens, yHat, info } = await this.receive(bytes, { maxPixels, report });
      const clock = stopwatch();
      const { width, height } = info;
      const told = (done, total, tile) => {
        const shown = tiles && total > 1 ? { tile: cropTile(tile, width, height) } : {};
        report({ stage: "painting", done, total, ...shown });
      };
      report({ stage: "painting", done: 0, total: 1 });
      const padded = await synthesise(networks, tables, plan, tokens, yHat, info.quality, told);
      const rgba = crop(padded, width, height);
      info.milliseconds.painting = clock();
      return { width, height, rgba, info };
    } catch (error) {
      throw explain(error, "the picture cannot be decoded");
    }
  }

  /** Return the networks of a model, fetched together and built. */
  async #ready(model, tables, report) {
    if (!this.#networks.has(model.folder)) {
      this.#networks.set(model.folder, new Networks(this.#getOrt, model, tables));
    }
    const networks = this.#networks.get(model.folder);
    const graphs = ["prior", "context", "synthesis"];
    let done = 0;
    report({ stage: "model", done, total: graphs.length });
    const load = async (graph) => {
      await networks.load(graph);
      report({ stage: "model", done: ++done, total: graphs.length });
    };
    await Promise.all(graphs.map(load));
    return networks;
  }
}

/** Read the symbols of one payload; plan: of its windows alone. */
async function readPart(payload, plan, quality, networks, tables, report) {
  const decoder = new RangeDecoder(payload);
  const tokens = readTokens(decoder, plan.tokenCounts(tables.tokenCount[quality]), tables);
  const tokenBits = decoder.bits;
  const prior = await priorOf(networks, tables, plan, tokens, quality);
  const context = (index, yHat, common) => networks.context(index, yHat, common, prior.dims);
  const details = await readDetails(decoder, tokens, prior, context, tables, report);
  decoder.finish();
  return { tokens, ...details, tokenBits, detailBits: decoder.bits - tokenBits };
}

/** A tile without what lies beyond the picture. */
function cropTile(tile, width, height) {
  const { top, left } = tile;
  const size = { width: Math.min(tile.width, width - left), height: Math.min(tile.height, height - top) };
  return { top, left, ...size, rgba: crop(tile, size.width, size.height) };
}

/** Cut the padding off, and add the fourth channel. */
function crop(padded, width, height) {
  const rgba = new Uint8ClampedArray(width * height * 4);
  for (let row = 0; row < height; row++) {
    let [from, into] = [3 * row * padded.width, 4 * row * width];
    for (let col = 0; col < width; col++, from += 3, into += 4) {
      rgba[into] = padded.data[from];
      rgba[into + 1] = padded.data[from + 1];
      rgba[into + 2] = padded.data[from + 2];
      rgba[into + 3] = 255;
    }
  }
  return rgba;
}

/** Returns a function that gives the milliseconds since it was last called. */
function stopwatch() {
  let last = performance.now();
  return () => {
    const [before, now] = [last, performance.now()];
    last = now;
    return now - before;
  };
}
