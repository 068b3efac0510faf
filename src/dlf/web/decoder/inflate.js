/** Decompression by the browser, with a bound. */

import { DlfError } from "./errors.js";

/**
 * Unfold bytes; form: 'deflate' (a zlib stream) or 'deflate-raw'.
 *
 * Raises DlfError where there are more than `most` bytes, and whatever the browser does where they are damaged.
 */
export async function inflate(bytes, form, most) {
  const stream = new DecompressionStream(form);
  const writer = stream.writable.getWriter();
  const written = Promise.all([writer.write(bytes), writer.close()]);
  written.catch(() => {}); // the reader meets the same error
  const reader = stream.readable.getReader();
  const parts = [];
  let size = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) {
      break;
    }
    size += value.length;
    if (size > most) {
      await reader.cancel();
      throw new DlfError("limit", `the data unfold to more than ${most} bytes`);
    }
    parts.push(value);
  }
  await written;
  const whole = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
