/** What is fetched or built once. */

/** Promises by key; one that fails is forgotten, so that the next who asks tries again. */
export class Kept {
  #promises = new Map();

  /** Return the promise of a key; make: called for it where there is none. */
  get(key, make) {
    if (!this.#promises.has(key)) {
      const promise = make();
      this.#promises.set(key, promise);
      promise.catch(() => this.#promises.delete(key));
    }
    return this.#promises.get(key);
  }
}
