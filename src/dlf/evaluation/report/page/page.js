"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);

function drawPlots() {
  const colours = {};
  const palette = ["#1f77b4", "#d62728", "#2ca02c", "#ff7f0e", "#9467bd", "#8c564b", "#e377c2", "#17becf", "#bcbd22", "#7f7f7f"];
  // all places first: how wide one is depends on how many there are
  const boxes = data.plots.map(() => Object.assign(document.createElement("div"), { className: "plot" }));
  at("plots").append(...boxes);
  const ink = getComputedStyle(document.body).color, clear = "rgba(0,0,0,0)";
  const axis = { gridcolor: "#8884", zerolinecolor: "#8888", linecolor: "#8888" };
  for (const [place, plot] of data.plots.entries()) {
    const traces = plot.lines.map((line) => {
      colours[line.label] ??= palette[Object.keys(colours).length % palette.length];
      return {
        x: line.points.map((p) => p[0]), y: line.points.map((p) => p[1]), name: line.label, mode: "lines+markers",
        line: { dash: line.published ? "dash" : "solid", color: colours[line.label] }, marker: { color: colours[line.label] },
      };
    });
    const layout = {
      // at the left, for the toolbar stands at the right
      title: { text: plot.title, x: 0, xref: "paper", xanchor: "left" }, font: { color: ink }, paper_bgcolor: clear, plot_bgcolor: clear,
      xaxis: { ...axis, title: { text: "bits per pixel" }, rangemode: "tozero" },
      yaxis: { ...axis, title: { text: plot.axis } }, legend: { orientation: "h", y: -0.25 },
      margin: { l: 60, r: 10, t: 40, b: 40 }, showlegend: true, modebar: { bgcolor: clear, color: "#888", activecolor: ink },
    };
    Plotly.newPlot(boxes[place], traces, layout, { responsive: true, displaylogo: false, modeBarButtons: [["toImage", "resetScale2d"]] });
  }
}

function fill(select, names, chosen) {
  select.replaceChildren(...names.map((name) => new Option(name, name)));
  select.value = names.includes(chosen) ? chosen : names[0] ?? "";
}

const example = () => data.examples.find((one) => one.name === at("picture").value);

function refill() {
  const one = example();
  fill(at("target"), Object.keys(one.targets), at("target").value || data.middle);
  choose();
}

function choose() {
  const shown = example().targets[at("target").value];
  const names = ["original", ...Object.keys(shown)];
  fill(at("left"), names, at("left").value || names[1]);
  fill(at("right"), names, at("right").value || names[2] || names[0]);
  show();
}

function show() {
  const one = example(), shown = one.targets[at("target").value];
  for (const side of ["left", "right"]) {
    const name = at(side).value;
    const tile = name === "original" ? { image: one.original, caption: `original, ${one.width} x ${one.height}` } : shown[name];
    at(`${side}-image`).src = tile.image;
    at(`${side}-caption`).textContent = tile.caption;
  }
  showBits(one, one.bits[at("target").value]);
}

function showBits(one, spent) {
  at("bits").hidden = !spent;
  if (!spent) return;
  at("bits-under").src = one.original;
  at("bits-map").src = spent.map;
  // the map covers whole cells, which may reach beyond the picture
  const [right, bottom] = spent.covers;
  at("bits-map").style.width = `${100 * right / one.width}%`;
  at("bits-map").style.setProperty("height", `${100 * bottom / one.height}%`, "important");
  at("bits-frame").style.overflow = "hidden";
  at("bits-caption").textContent = spent.caption;
  at("bits-windows").replaceChildren(...spent.windows.map((w) => {
    const box = document.createElement("span");
    box.textContent = `${w.tokens} tokens, ${w.token_bits.toFixed(0)} bits + ${w.detail_bits.toFixed(0)} of detail`;
    Object.assign(box.style, {
      left: `${100 * w.x / one.width}%`, top: `${100 * w.y / one.height}%`,
      width: `${100 * Math.min(w.side, one.width - w.x) / one.width}%`, height: `${100 * Math.min(w.side, one.height - w.y) / one.height}%`,
    });
    return box;
  }));
}

function slide() {
  const place = at("slider").value;
  at("left-image").style.clipPath = `inset(0 ${100 - place}% 0 0)`;
  at("bar").style.left = `${place}%`;
}

drawPlots();
if (data.examples.length) {
  fill(at("picture"), data.examples.map((one) => one.name));
  at("picture").addEventListener("change", refill);
  at("target").addEventListener("change", choose);
  at("left").addEventListener("change", show);
  at("right").addEventListener("change", show);
  at("slider").addEventListener("input", slide);
  at("bits-opacity").addEventListener("input", (event) => { at("bits-map").style.opacity = event.target.value; });
  at("bits-map").style.opacity = at("bits-opacity").value;
  refill();
  slide();
} else {
  at("pictures").hidden = at("bits").hidden = true;
}
