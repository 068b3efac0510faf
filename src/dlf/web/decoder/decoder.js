/**
 * Decodes .dlf files in the browser; the entry of this folder.
 *
 *     import { decodeDlf } from "./decoder/decoder.js";
 *     const { width, height, rgba } = await decodeDlf(await file.arrayBuffer());
 *     context.putImageData(new ImageData(rgba, width, height), 0, 0);
 */

import { DlfError } from "./errors.js";
import { MAX_PIXELS, readFile, readHeader as readHeaderOf } from "./format.js";

export { DlfError, MAX_PIXELS };

const HERE = new URL("../", import.meta.url);

/** Read the header of a file: {version, model, quality, width, height, hasMetadata, hasPackets, headerBytes}; raises DlfError. */
export function readHeader(bytes) {
  return readHeaderOf(asBytes(bytes));
}

/**
 * Decode the bytes of a .dlf file, in a worker.
 *
 * bytes: Uint8Array or ArrayBuffer.
 * onProgress: called with {stage, done, total}; stage: 'model' (networks read), 'symbols' (steps of four),
 *     'painting' (tiles).
 * onTile: called with {top, left, width, height, rgba} for each part of a large picture as soon as it is painted, to
 *     be shown until the whole is there; the parts overlap.
 * baseUrl: the folder that holds models/ and onnxruntime/; the one above this by default.
 * maxPixels: limit of width * height.
 * signal: an AbortSignal; the promise is then rejected with its reason.
 * Returns a promise of {width, height, rgba: Uint8ClampedArray, info}, which is rejected with a DlfError.
 */
export async function decodeDlf(bytes, options = {}) {
  const { onProgress, onTile, baseUrl = HERE, maxPixels = MAX_PIXELS, signal } = options;
  signal?.throwIfAborted();
  const content = asBytes(bytes).slice();
  await readFile(content, maxPixels); // what is no .dlf file starts no worker
  signal?.throwIfAborted();
  const hear = ({ tile, ...progress }) => {
    onProgress?.(progress);
    if (tile) {
      onTile?.(tile);
    }
  };
  const request = { bytes: content, maxPixels, tiles: Boolean(onTile) };
  return laneOf(new URL(baseUrl, document.baseURI).href).ask(request, hear, signal);
}

function asBytes(bytes) {
  if (bytes instanceof ArrayBuffer) {
    return new Uint8Array(bytes);
  }
  if (!(bytes instanceof Uint8Array)) {
    throw new TypeError("bytes must be a Uint8Array or an ArrayBuffer");
  }
  return bytes;
}

// after these a worker may not work again: its runtime remembers that it failed
const OWN_FAULTS = new Set(["memory", "network", "bundle"]);

const lanes = new Map();

function laneOf(baseUrl) {
  if (!lanes.has(baseUrl)) {
    lanes.set(baseUrl, new Lane(baseUrl));
  }
  return lanes.get(baseUrl);
}

/** A worker, kept with the networks that it has loaded, and the requests that wait for it. */
class Lane {
  #baseUrl;
  #worker = null;
  #waiting = new Map(); // in order; the first is being worked on
  #next = 0;

  constructor(baseUrl) {
    this.#baseUrl = baseUrl;
  }

  ask(request, hear, signal) {
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      const abort = () => {
        const [running] = this.#waiting.keys();
        this.#settle(id).reject(signal.reason);
        if (running === id) {
          this.#restart(); // nothing else ends a network that runs
        } else {
          this.#worker.postMessage({ forget: id });
        }
      };
      signal?.addEventListener("abort", abort, { once: true });
      const forget = () => signal?.removeEventListener("abort", abort);
      this.#waiting.set(id, { request, hear, resolve, reject, forget });
      this.#send(id, request);
    });
  }

  #send(id, request) {
    if (this.#worker === null) {
      this.#worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
      this.#worker.onmessage = ({ data }) => this.#hear(data);
      this.#worker.onerror = (event) => this.#fail(event);
    }
    this.#worker.postMessage({ id, baseUrl: this.#baseUrl, ...request });
  }

  #hear({ id, progress, picture, error }) {
    if (!this.#waiting.has(id)) {
      return; // given up meanwhile
    }
    if (progress) {
      this.#waiting.get(id).hear(progress);
    } else if (picture) {
      this.#settle(id).resolve(picture);
    } else {
      this.#settle(id).reject(new DlfError(error.kind, error.message));
      if (OWN_FAULTS.has(error.kind)) {
        this.#restart();
      }
    }
  }

  /** The worker itself broke: it cannot be loaded, or its runtime died. */
  #fail(event) {
    event.preventDefault();
    const error = event.message
      ? new DlfError("memory", `the decoder stopped, which mostly means too little memory (${event.message})`)
      : new DlfError("network", "the decoder's program cannot be loaded from this site");
    const [running] = this.#waiting.keys();
    if (running !== undefined) {
      this.#settle(running).reject(error);
    }
    this.#restart();
  }

  #settle(id) {
    const settled = this.#waiting.get(id);
    this.#waiting.delete(id);
    settled.forget();
    return settled;
  }

  /** Start anew with what still waits. */
  #restart() {
    this.#worker?.terminate();
    this.#worker = null;
    for (const [id, { request }] of this.#waiting) {
      this.#send(id, request);
    }
  }
}
