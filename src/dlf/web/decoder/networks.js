/** The networks of a model in onnxruntime-web, with checked outputs. */

import { DlfError, explain } from "./errors.js";
import { ceilDiv, CELL, PATCH, WINDOW, WINDOW_PIXELS, windowPlan } from "./geometry.js";
import { Kept } from "./kept.js";

const EXACT = 2 ** 24; // below this every integer has its own float32
const PRIOR_REACH = 2; // cells that a prior network without tokens looks to each side

/** Runs the three graphs that decoding needs; each is read and built when first needed. */
export class Networks {
  #getOrt;
  #model;
  #tables;
  #sessions = new Kept();

  /** getOrt: gives the module of onnxruntime-web, a promise. */
  constructor(getOrt, model, tables) {
    this.#getOrt = getOrt;
    this.#model = model;
    this.#tables = tables;
  }

  /** Read and build a graph ahead of its first run. */
  load(graph) {
    return this.#sessions.get(graph, () => this.#build(graph));
  }

  async #build(graph) {
    const [ort, bytes] = await Promise.all([this.#getOrt(), this.#model.read(`${graph}.onnx`)]);
    try {
      return await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"], logSeverityLevel: 4 });
    } catch (error) {
      throw explain(error, `the model's ${graph} network cannot be loaded`);
    }
  }

  /** Run a graph on those of the inputs that it has: {name: [type, data, dims]}. */
  async #run(graph, inputs) {
    const [ort, session] = await Promise.all([this.#getOrt(), this.load(graph)]);
    const given = session.inputNames.filter((name) => name in inputs);
    const feeds = Object.fromEntries(given.map((name) => [name, new ort.Tensor(...inputs[name])]));
    try {
      return await session.run(feeds);
    } catch (error) {
      throw explain(error, `the model's ${graph} network cannot be run on this picture`);
    }
  }

  /**
   * Parameters of the first step, for `rows` x `cols` cells.
   *
   * tokens: Int32Array (windows, tokens), -1 where not sent.
   * Returns {scale, mean, step: Int32Array, common: Float32Array, dims: [channels, rows, cols]}.
   */
  async prior(rows, cols, quality, tokens) {
    // without tokens all cells away from the border are alike: few are computed, and repeated
    const place = this.#tables.tokenPrior ? (count) => Int32Array.from({ length: count }, (_, i) => i) : byBorder;
    const [down, across] = [place(rows), place(cols)];
    const [height, width] = [down.at(-1) + 1, across.at(-1) + 1];
    const vector = this.#tables.prior(quality);
    const input = new Float32Array(vector.length * height * width);
    vector.forEach((value, i) => input.fill(value, i * height * width, (i + 1) * height * width));
    const windows = [ceilDiv(rows * CELL, WINDOW_PIXELS), ceilDiv(cols * CELL, WINDOW_PIXELS)];
    const found = await this.#run("prior", {
      prior: ["float32", input, [1, vector.length, height, width]],
      tokens: ["int64", BigInt64Array.from(tokens, BigInt), [...windows, this.#model.manifest.tokens]],
    });
    const { channels } = this.#model.manifest;
    const spread = (name) => {
      const small = integers(found[name], [channels, height, width], "prior");
      const whole = new Int32Array(channels * rows * cols);
      let at = 0;
      for (let channel = 0; channel < channels; channel++) {
        for (let row = 0; row < rows; row++) {
          const from = (channel * height + down[row]) * width;
          for (let col = 0; col < cols; col++) {
            whole[at++] = small[from + across[col]];
          }
        }
      }
      return whole;
    };
    const step = spread("step");
    if (step.some((value) => value < 1)) {
      throw new DlfError("bundle", "the model's prior network gave a quantisation step below 1");
    }
    const common = Float32Array.from(spread("common"));
    return { scale: spread("scale"), mean: spread("mean"), step, common, dims: [channels, rows, cols] };
  }

  /** Parameters of a later step: {scale, mean: Int32Array}; index: 0, 1, 2. */
  async context(index, yHat, common, dims) {
    const found = await this.#run("context", {
      y_hat: ["float32", Float32Array.from(yHat), [1, ...dims]],
      common: ["float32", common, [1, ...dims]],
      index: ["int64", BigInt64Array.of(BigInt(index)), []],
    });
    return { scale: integers(found.scale, dims, "context"), mean: integers(found.mean, dims, "context") };
  }

  /** Paint: Uint8Array (32 rows, 32 cols, 3). */
  async synthesise(tokens, yHat, rows, cols, quality) {
    const { channels, tokens: places, swin_window: swin } = this.#model.manifest;
    const patches = [(rows * CELL) / PATCH, (cols * CELL) / PATCH];
    const inputs = {
      tokens: ["int64", BigInt64Array.from(tokens, BigInt), [tokens.length / places, places]],
      y_hat: ["float32", yHat, [1, channels, rows, cols]],
      quality: ["float32", Float32Array.of(quality), [1]],
    };
    const plans = {
      token: windowPlan(...patches, WINDOW),
      swin: windowPlan(...patches, swin),
      shift: windowPlan(...patches, swin, swin >> 1),
    };
    for (const [name, plan] of Object.entries(plans)) {
      for (const [part, { dims, data }] of Object.entries(plan)) {
        inputs[`${name}_${part}`] = ["int64", data, dims];
      }
    }
    const { rgb } = await this.#run("synthesis", inputs);
    if (rgb?.type !== "uint8" || rgb.dims.join() !== [rows * CELL, cols * CELL, 3].join()) {
      throw new DlfError("bundle", "the model's synthesis network gave no picture of the right size");
    }
    return rgb.data;
  }
}

/** Place of each of `count` cells in a row of at most 2 * PRIOR_REACH + 1 whose middle is repeated. */
function byBorder(count) {
  const last = 2 * PRIOR_REACH;
  return Int32Array.from({ length: count }, (_, i) =>
    Math.min(i, Math.max(PRIOR_REACH, i - Math.max(0, count - 1 - last))),
  );
}

/** Check float32 (1, ...dims) for exact integers and return them. */
function integers(tensor, dims, graph) {
  const right = tensor?.type === "float32" && tensor.dims.join() === [1, ...dims].join();
  if (!right || !tensor.data.every((value) => Math.abs(value) < EXACT && Number.isInteger(value))) {
    throw new DlfError("bundle", `the model's ${graph} network gave something else than whole numbers`);
  }
  return Int32Array.from(tensor.data);
}
