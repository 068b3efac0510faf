// Two pictures of one size, one over the other, with a border that a slider or a pointer moves.

export class Compare {
  #views = new Map();
  #ratio = 1;
  #wanted = { left: "original", right: "dlf" }; // kept where a picture has no such view

  constructor(page) {
    this.page = page;
    page.slider.addEventListener("input", () => this.#place(page.slider.value));
    for (const side of ["left", "right"]) {
      page[side].addEventListener("change", () => {
        this.#wanted[side] = page[side].value;
        this.#show(side);
      });
    }
    page.compare.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      page.compare.setPointerCapture(event.pointerId);
      this.#point(event);
    });
    page.compare.addEventListener("pointermove", (event) => {
      if (page.compare.hasPointerCapture(event.pointerId)) this.#point(event);
    });
    window.addEventListener("resize", () => this.#fit());
  }

  // views: [{key, label, url}]; width, height: of the picture.  Returns the keys of those that can be shown.
  async show(views, width, height) {
    const shown = await Promise.all(views.map(async (view) => ((await loads(view.url)) ? view : null)));
    this.#views = new Map(shown.filter(Boolean).map((view) => [view.key, view]));
    const keys = [...this.#views.keys()];
    for (const [side, wanted] of Object.entries(this.#wanted)) {
      this.page[side].replaceChildren(...keys.map((key) => new Option(this.#views.get(key).label, key)));
      this.page[side].value = keys.includes(wanted) ? wanted : keys[0];
      this.#show(side);
    }
    const choices = ["left", "right"].map((side) => this.page[side].closest(".choice"));
    for (const part of [this.page.line, this.page.slider, this.page.leftCaption, ...choices]) {
      part.hidden = keys.length < 2; // one picture has nothing to be compared with
    }
    this.#ratio = width / height;
    this.#fit();
    this.#place(this.page.slider.value);
    return keys;
  }

  #show(side) {
    const view = this.#views.get(this.page[side].value);
    const image = this.page[`${side}Image`];
    image.src = view.url;
    image.alt = view.label;
    this.page[`${side}Caption`].textContent = view.label;
  }

  // As wide as there is room, but no higher than what can be seen at once.
  #fit() {
    const most = Math.max(200, window.innerHeight * 0.75) * this.#ratio;
    this.page.figure.style.maxWidth = `${most}px`;
    this.page.compare.style.aspectRatio = String(this.#ratio);
  }

  #point(event) {
    const box = this.page.compare.getBoundingClientRect();
    const at = Math.round((100 * (event.clientX - box.left)) / box.width);
    this.page.slider.value = at;
    this.#place(this.page.slider.value);
  }

  #place(at) {
    this.page.compare.style.setProperty("--at", `${at}%`);
    this.page.slider.setAttribute("aria-valuetext", `${at} % of the width shows the left picture`);
  }
}

// Whether this browser can show a picture; it may not know the format.
function loads(url) {
  return new Promise((resolve) => {
    const image = new Image();
    image.onload = () => resolve(true);
    image.onerror = () => resolve(false);
    image.src = url;
  });
}
