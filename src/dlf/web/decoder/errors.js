/** Errors that a user can meet; each message is one sentence that says what is wrong or what to do. */

/**
 * kind: 'format' (not a .dlf file, or malformed), 'checksum' (damaged, or of another model), 'version' (a newer
 * format), 'unknown-model', 'bundle' (a model of the site is damaged), 'limit' (the picture is too large),
 * 'memory' (this browser has not enough), 'network' (a file of the site cannot be fetched).
 */
export class DlfError extends Error {
  constructor(kind, message) {
    super(message);
    this.name = "DlfError";
    this.kind = kind;
  }
}

const OUT_OF_MEMORY = /bad_alloc|\bOOM\b|out of memory|failed to allocate|allocation failed|array length|grow memory/i;

/** Turn whatever a graph or the runtime threw into a DlfError; `what` was tried. */
export function explain(error, what) {
  if (error instanceof DlfError) {
    return error;
  }
  const text = String(error?.message ?? error);
  if (OUT_OF_MEMORY.test(text)) {
    return new DlfError("memory", "this browser has not enough memory to paint the picture");
  }
  return new DlfError("bundle", `${what} (${text.split("\n")[0]})`);
}
