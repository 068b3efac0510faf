// The service that this page came from, if it came from one.  Every failure is an Error with a sentence.

const UNREACHABLE = "The service cannot be reached.";

export class Service {
  constructor(limits, models) {
    this.limits = limits;
    this.models = models;
  }

  // The service beside this page, or null on a host that has files only.
  static async find() {
    try {
      const [limits, models] = await Promise.all(["limits", "models"].map(async (path) => {
        const answer = await fetch(path);
        const isJson = (answer.headers.get("content-type") ?? "").startsWith("application/json");
        if (!answer.ok || !isJson) throw new Error(UNREACHABLE);
        return answer.json();
      }));
      return new Service(limits, models);
    } catch {
      return null;
    }
  }

  // size: {quality} or {bytes}.  Returns the bytes of the .dlf file.
  async encode(picture, size, model, signal) {
    if (picture.size > this.limits.max_bytes) {
      throw new Error(`The photo has ${count(picture.size)} bytes; the service takes ${count(this.limits.max_bytes)}.`);
    }
    const answer = await this.#post("encode", { ...size, ...(model && { model }) }, picture, signal);
    return new Uint8Array(await answer.arrayBuffer());
  }

  // Returns the picture of a .dlf file as a Blob.
  async decode(bytes, signal) {
    return (await this.#post("decode", { format: "png" }, bytes, signal)).blob();
  }

  // Returns what the file says of itself, as dlf.StreamInfo has it.
  async describe(bytes, signal) {
    return (await this.#post("info", { symbols: "true" }, bytes, signal)).json();
  }

  // Returns the bits of each cell and window.
  async bits(bytes, signal) {
    return (await this.#post("bits", {}, bytes, signal)).json();
  }

  // Returns an AVIF file of at most that many bytes, or the smallest: {blob, scale}.
  async avif(picture, bytes, signal) {
    const answer = await this.#post("avif", { bytes, best: "true" }, picture, signal);
    return { blob: await answer.blob(), scale: answer.headers.get("dlf-scale") };
  }

  async #post(path, query, body, signal) {
    const answer = await this.#send(path, query, body, signal);
    await check(answer);
    return answer;
  }

  async #send(path, query, body, signal) {
    try {
      return await fetch(`${path}?${new URLSearchParams(query)}`, {
        method: "POST", body, signal, headers: { "content-type": "application/octet-stream" },
      });
    } catch (error) {
      if (signal.aborted) throw error;
      throw new Error(UNREACHABLE);
    }
  }
}

export function count(number) {
  return Math.round(number).toLocaleString("en");
}

async function check(answer) {
  if (answer.ok) return;
  let reason = `the service answered ${answer.status}`;
  try {
    reason = (await answer.json()).error ?? reason;
  } catch { /* something between us and the service answered in its own way */ }
  const wait = answer.headers.get("retry-after");
  throw new Error(wait && answer.status !== 500 ? `${reason}. Try again in ${wait} s.` : reason);
}
