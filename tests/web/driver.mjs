// Runs parts of the browser's decoder in Node: a JSON command a line in, a JSON answer a line out.
// Argument: the folder of a site as `dlf web` writes it.

import { createHash } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const site = pathToFileURL(`${process.argv[2]}/`);
const part = (name) => import(new URL(`decoder/${name}.js`, site));
const fetchFile = async (path) => new Uint8Array(await readFile(new URL(path, site)));
const fromBase64 = (text) => new Uint8Array(Buffer.from(text, "base64"));
const sha = (...arrays) => {
  const hash = createHash("sha256");
  arrays.forEach((array) => hash.update(new Uint8Array(array.buffer, array.byteOffset, array.byteLength)));
  return hash.digest("hex");
};

let decoder = null;
async function getDecoder() {
  const { Decoder } = await part("decode");
  return (decoder ??= new Decoder(loadRuntime, fetchFile));
}

async function loadRuntime() {
  const runtime = await import(new URL("onnxruntime/ort.js", site));
  runtime.env.wasm.numThreads = 1;
  runtime.env.wasm.wasmPaths = { mjs: new URL("onnxruntime/ort-wasm.js", site).href };
  runtime.env.wasm.wasmBinary ??= (await fetchFile("onnxruntime/ort-wasm.wasm")).buffer;
  return runtime;
}

// pixels that depend on everything and, by their place in the tile, on how the picture is cut
function paint(tokens, yHat, rows, cols) {
  const [height, width, windows] = [32 * rows, 32 * cols, Math.ceil(cols / 8)];
  const places = tokens.length / (Math.ceil(rows / 8) * windows);
  const rgb = new Uint8Array(height * width * 3);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const token = tokens[((y >> 8) * windows + (x >> 8)) * places];
      for (let c = 0; c < 3; c++) {
        const cell = yHat[(c * rows + (y >> 5)) * cols + (x >> 5)];
        rgb[3 * (y * width + x) + c] = cell + 7 * token + 3 * y + x;
      }
    }
  }
  return rgb;
}

const commands = {
  async range({ payload, parts }) {
    const { FrequencyTable, RangeDecoder } = await part("range");
    const reader = new RangeDecoder(fromBase64(payload));
    const symbols = parts.map(([frequency, count]) => {
      const table = new FrequencyTable(frequency);
      return Array.from({ length: count }, () => reader.symbol(table));
    });
    reader.finish();
    return { symbols, bits: reader.bits };
  },
  async parse({ bytes, maxPixels }) {
    const { readFile: parse } = await part("format");
    const { header, sizes, metadata } = await parse(fromBase64(bytes), maxPixels);
    const text = (value) => (value instanceof Uint8Array ? Buffer.from(value).toString("base64") : value);
    const shown = Object.fromEntries(Object.entries(metadata).map(([name, value]) => [name, text(value)]));
    return { header, sizes, metadata: shown };
  },
  async receive({ bytes }) {
    const { tokens, yHat, symbols, info } = await (await getDecoder()).receive(fromBase64(bytes));
    return { tokens: sha(tokens), details: sha(...symbols), yHat: sha(yHat), info };
  },
  async decode({ bytes, maxPixels, out }) {
    const tiles = [];
    const report = ({ tile }) => tile && tiles.push(tile);
    const options = { maxPixels, report, tiles: true };
    const { width, height, rgba, info } = await (await getDecoder()).decode(fromBase64(bytes), options);
    await writeFile(out, rgba);
    const outlines = tiles.map(({ top, left, ...tile }) => [top, left, tile.height, tile.width, tile.rgba.length]);
    return { width, height, info, tiles: outlines };
  },
  async sha256({ bytes }) {
    const { digest, sha256 } = await part("checksums");
    return { own: Buffer.from(digest(fromBase64(bytes))).toString("hex"), browser: await sha256(fromBase64(bytes)) };
  },
  async explain({ message }) {
    const { explain } = await part("errors");
    throw explain(new Error(message), "the network cannot be run");
  },
  async plan({ rows, cols, window, shift }) {
    const { windowPlan } = await part("geometry");
    const maps = Object.entries(windowPlan(rows, cols, window, shift));
    return Object.fromEntries(maps.map(([name, { dims, data }]) => [name, { dims, data: Array.from(data, Number) }]));
  },
  async counts({ height, width, unit, tokens }) {
    const { Plan } = await part("geometry");
    const plan = new Plan(height, width, unit);
    return { cells: [plan.rows, plan.cols], counts: plan.tokenCounts(tokens) };
  },
  async tiles({ height, width, channels }) {
    const [{ Plan }, { synthesise }] = [await part("geometry"), await part("tiles")];
    const plan = new Plan(height, width);
    const tokens = Int32Array.from({ length: 2 * plan.windowRows * plan.windowCols }, (_, i) => (i * i) % 11);
    const yHat = Float32Array.from({ length: channels * plan.rows * plan.cols }, (_, i) => (i * 37) % 251);
    const networks = { synthesise: async (...given) => paint(...given) };
    const places = [];
    const report = (done, total, { top, left, ...size }) => places.push([top, left, size.height, size.width]);
    const picture = await synthesise(networks, { token: { length: 2 } }, plan, tokens, yHat, 50, report);
    return { dims: [picture.height, picture.width], sha: sha(picture.data), places };
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { command, ...given } = JSON.parse(line);
  let answer;
  try {
    answer = await commands[command](given);
  } catch (error) {
    answer = { error: error.kind ?? `unexpected: ${error.stack}`, message: error.message };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
