/** The models of a site: which of them wrote a file, and their files, hashed when they are read. */

import { sha256 } from "./checksums.js";
import { DlfError } from "./errors.js";
import { fits } from "./format.js";
import { Kept } from "./kept.js";
import { readTables } from "./tables.js";

const FILES = ["analysis.onnx", "prior.onnx", "context.onnx", "synthesis.onnx", "tables.npz"];
const NUMERICS = ["context.onnx", "prior.onnx", "tables.npz"]; // what decides the symbols

/** One model: its folder on the site and the contents of its manifest. */
class Model {
  #kept = new Kept();

  constructor(folder, manifest, fetchFile) {
    this.folder = folder;
    this.manifest = manifest;
    this.fetchFile = fetchFile;
  }

  /** Return the bytes of one of the files after checking their hash. */
  async read(name) {
    const bytes = await this.fetchFile(`models/${this.folder}/${name}`);
    if ((await sha256(bytes)) !== this.manifest.files[name]) {
      const which = `${name} of the model '${this.manifest.name}'`;
      throw new DlfError("bundle", `the file ${which} is damaged: its hash is wrong`);
    }
    return bytes;
  }

  tables() {
    return this.#kept.get("tables", async () => readTables(await this.read("tables.npz")));
  }
}

/**
 * The models that models/index.json lists, in order of preference.
 *
 * fetchFile: gives the bytes of a file of the site by its path, a promise of Uint8Array.
 */
export class Models {
  #kept = new Kept();

  constructor(fetchFile) {
    this.fetchFile = fetchFile;
  }

  /** Return the first model whose id and checksum fit a file (of readFile); raises DlfError. */
  async writerOf(file) {
    const number = file.header.model;
    const candidates = (await this.all()).filter((model) => model.manifest.id === number);
    if (candidates.length === 0) {
      throw new DlfError("unknown-model", `the file was written with model number ${number}, which is not on this site`);
    }
    const wrote = ({ manifest }) => file.packets.some((packet) => fits(packet, manifest.numerics));
    const writer = candidates.find(wrote);
    if (!writer) {
      const names = [...new Set(candidates.map((model) => `'${model.manifest.name}'`))].sort().join(", ");
      throw new DlfError(
        "checksum",
        `the checksum does not match: the file is damaged, or written with another model of the number ${number} ` +
          `than ${names}`,
      );
    }
    return writer;
  }

  all() {
    return this.#kept.get("all", () => this.#open());
  }

  async #open() {
    const { models } = parse(await this.fetchFile("models/index.json"), "models/index.json");
    return Promise.all(
      models.map(async (folder) => {
        const path = `models/${folder}/manifest.json`;
        const manifest = parse(await this.fetchFile(path), path);
        await checkManifest(manifest);
        return new Model(folder, manifest, this.fetchFile);
      }),
    );
  }
}

function parse(bytes, name) {
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    throw new DlfError("bundle", `the file ${name} of the site is not JSON`);
  }
}

async function checkManifest(manifest) {
  const hashes = manifest.files ?? {};
  const numerics = NUMERICS.map((name) => hashes[name]).join("");
  const whole =
    manifest.format === 1 &&
    (manifest.engine ?? "onnx") === "onnx" &&
    FILES.every((name) => typeof hashes[name] === "string") &&
    manifest.numerics === (await sha256(new TextEncoder().encode(numerics))) &&
    ["id", "tokens", "codes", "channels", "swin_window"].every((key) => Number.isInteger(manifest[key]));
  if (!whole) {
    throw new DlfError("bundle", "a model of the site has a manifest that this page does not read");
  }
}
