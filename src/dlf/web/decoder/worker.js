/** Runs a Decoder beside the page; decoder.js is its only caller. */

import { Decoder } from "./decode.js";
import { DlfError, explain } from "./errors.js";
import { Kept } from "./kept.js";

const MOST_THREADS = 4; // more gain little, and the machine belongs to others too

let decoder = null;
let turn = Promise.resolve(); // one request after the other: two pictures at once would need twice the memory

const forgotten = new Set();

self.onmessage = ({ data }) => {
  if ("forget" in data) {
    forgotten.add(data.forget);
  } else {
    turn = turn.then(() => (forgotten.delete(data.id) ? null : answer(data)));
  }
};

async function answer({ id, bytes, baseUrl, maxPixels, tiles }) {
  const report = (progress) => self.postMessage({ id, progress });
  try {
    decoder ??= makeDecoder(baseUrl);
    const picture = await decoder.decode(bytes, { maxPixels, report, tiles });
    picture.info.threads = threads();
    self.postMessage({ id, picture }, [picture.rgba.buffer]);
  } catch (error) {
    const { kind, message } = explain(error, "the picture cannot be decoded");
    self.postMessage({ id, error: { kind, message } });
  }
}

function makeDecoder(baseUrl) {
  const fetchFile = async (path) => {
    let response;
    try {
      response = await fetch(new URL(path, baseUrl));
      if (response.ok) {
        return new Uint8Array(await response.arrayBuffer());
      }
    } catch {
      // told below
    }
    const reason = response && !response.ok ? `the server says ${response.status}` : "no connection";
    throw new DlfError("network", `the file ${path} of this site cannot be fetched (${reason})`);
  };
  const kept = new Kept();
  return new Decoder(() => kept.get("runtime", () => loadRuntime(baseUrl, fetchFile)), fetchFile);
}

async function loadRuntime(baseUrl, fetchFile) {
  const url = (name) => new URL(`onnxruntime/${name}`, baseUrl).href;
  let ort;
  try {
    ort = await import(url("ort.js"));
  } catch {
    throw new DlfError("network", "the file onnxruntime/ort.js of this site cannot be loaded");
  }
  ort.env.wasm.numThreads = threads();
  ort.env.wasm.wasmPaths = { mjs: url("ort-wasm.js") };
  // fetched here, so that the type that the host gives it does not matter
  ort.env.wasm.wasmBinary = (await fetchFile("onnxruntime/ort-wasm.wasm")).buffer;
  return ort;
}

/** Threads need memory that they share, which browsers give to isolated pages only. */
function threads() {
  return self.crossOriginIsolated ? Math.min(MOST_THREADS, navigator.hardwareConcurrency || 1) : 1;
}
