// The page: takes a photo or a .dlf file, and shows what becomes of it.

import { draw } from "./bits.js";
import { Compare } from "./compare.js";
import { count, Service } from "./service.js";

const MAGIC = "DLF";
const DECODER = "./decoder/decoder.js";
const STAGES = {
  model: "Fetching the model, once…", symbols: "Reading the symbols…", painting: "Painting in this browser…",
};

const page = Object.fromEntries([...document.querySelectorAll("[id]")].map((element) => [
  element.id.replace(/-(.)/g, (_, letter) => letter.toUpperCase()), element,
]));
const compare = new Compare(page);

let service = null; // where pictures are encoded, if anywhere
let decoder = null; // the module that decodes in this browser, if it is there
let picture = null; // the photo that was chosen: {name, file, sent}
let run = new AbortController();
let urls = []; // of what is shown

async function start() {
  // says what there is, so that nothing is asked for in vain
  const site = await fetch("site.json").then((answer) => answer.json()).catch(() => ({}));
  if (site.service) service = await Service.find();
  if (site.decoder) decoder = await import(DECODER).catch(() => null);
  page.localChoice.hidden = !(service && decoder);
  page.apiLink.hidden = !service;
  page.settings.hidden = !service;
  if (service) {
    page.place.textContent = "Photos are encoded by the service that this page came from, "
      + "which forgets them at once. No other host is asked for anything.";
    page.model.replaceChildren(...service.models.map(option));
  } else if (decoder) {
    page.place.textContent = "This page has no service behind it: it shows .dlf files, in this browser alone.";
  } else {
    page.place.textContent = "This page has neither a service nor a decoder, so it can do nothing.";
  }
}

function option(model) {
  const [role] = model.roles.filter((name) => name !== "default");
  return new Option(role ? `${role} (${model.name})` : model.name, model.name, model.default, model.default);
}

// ---- what comes in

async function take(file) {
  if (!file) return;
  await started;
  page.result.hidden = true; // it is of another file
  const head = await file.slice(0, MAGIC.length).text();
  if (head === MAGIC) {
    picture = null;
    page.encode.disabled = true;
    await work(async (signal) => show(new Uint8Array(await file.arrayBuffer()), file.name, null, signal));
  } else {
    picture = { name: file.name, file };
    page.encode.disabled = !service;
    await encode();
  }
}

async function encode() {
  if (!picture) return;
  await work(async (signal) => {
    if (!service) throw new Error("Without a service this page shows .dlf files only; this is none.");
    const size = page.byBytes.checked ? { bytes: bytesAtMost() } : { quality: page.quality.value };
    say("Encoding…");
    const sent = await scaled(picture.file, Number(page.side.value));
    const data = await service.encode(sent, size, page.model.value, signal);
    await show(data, picture.name, sent, signal);
  });
}

function bytesAtMost() {
  if (!page.bytes.checkValidity() || page.bytes.value === "") {
    throw new Error(`Bytes must be a whole number from ${page.bytes.min} to ${page.bytes.max}.`);
  }
  return page.bytes.value;
}

// The photo with a longest side of at most so many pixels; 0, or a format unknown here, leaves it as it is.
async function scaled(file, side) {
  const image = side && (await createImageBitmap(file).catch(() => null));
  if (!image || Math.max(image.width, image.height) <= side) return file;
  const scale = side / Math.max(image.width, image.height);
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(image.width * scale);
  canvas.height = Math.round(image.height * scale);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  image.close();
  return new Promise((resolve) => { canvas.toBlob((blob) => resolve(blob ?? file), "image/png"); });
}

// ---- one piece of work at a time; a new one ends the one before

async function work(steps) {
  run.abort();
  const mine = run = new AbortController();
  page.error.textContent = "";
  page.progress.hidden = false;
  page.progress.removeAttribute("value");
  try {
    await steps(mine.signal);
    if (mine === run) say("Done.");
  } catch (error) {
    if (mine !== run) return;
    say("");
    page.error.textContent = sentence(error.message || String(error));
  } finally {
    if (mine === run) page.progress.hidden = true;
  }
}

function say(text) {
  page.status.textContent = text;
}

function sentence(text) {
  return text[0].toUpperCase() + text.slice(1) + (/[.!?…]$/.test(text) ? "" : ".");
}

// ---- what comes out

// data: of a .dlf file; original: the picture that it was made from, or null.
async function show(data, name, original, signal) {
  say("Decoding…");
  const decoded = await decode(data, signal);
  signal.throwIfAborted();
  urls.forEach((url) => URL.revokeObjectURL(url));
  urls = [];
  const size = await dimensions(decoded.blob);
  const views = [{ key: "dlf", label: `this file, ${count(data.length)} bytes`, url: link(decoded.blob) }];
  if (original) views.unshift({ key: "original", label: "original", url: link(original) });
  const present = () => compare.show(views, size.width, size.height);
  const known = await present();
  facts([["Bytes", count(data.length)], ["Size", `${size.width} × ${size.height}`],
    ["Bits a pixel", ((8 * data.length) / (size.width * size.height)).toFixed(4)]]);
  page.mapChoice.hidden = !service;
  page.map.hidden = page.mapText.hidden = true;
  const stem = name.replace(/\.[^.]*$/, "") || "photo";
  save(page.saveFile, new Blob([data], { type: "image/x-dlf" }), `${stem}.dlf`);
  save(page.savePicture, decoded.blob, `${stem}.dlf.png`);
  page.result.hidden = false;
  if (original && !known.includes("original")) {
    page.error.textContent = "This browser cannot show the original, so it is left out.";
  }
  if (service) await compareAndExplain(data, original, views, present, size, signal);
}

// What only the service knows; nothing of it is needed to see the picture.
async function compareAndExplain(data, original, views, present, size, signal) {
  say("Looking where the bits went…");
  const [info, spent] = await Promise.all([service.describe(data, signal), service.bits(data, signal)]);
  facts([
    ["Bytes", count(data.length)],
    ...(original && original === picture?.file ? [["Of the photo's file", `1/${count(original.size / data.length)}`]] : []),
    ["Bits a pixel", info.bpp.toFixed(4)],
    ["Size", `${info.width} × ${info.height}`],
    ["Quality", String(info.quality)],
    ["Model", info.model_name ?? `number ${info.model}`],
    ["Details, tokens", `${count(info.detail_bits)} and ${count(info.token_bits)} bits`],
  ]);
  page.mapText.textContent = draw(page.map, spent, size.width, size.height);
  page.map.setAttribute("aria-label", page.mapText.textContent);
  showMap();
  if (!original || !service.limits.avif) return;
  say("Making an AVIF file of the same size…");
  const avif = await service.avif(original, data.length, signal);
  signal.throwIfAborted();
  const scale = avif.scale === "1" ? "" : `, at ${avif.scale} of the width and height`;
  const limit = avif.blob.size > data.length ? ", no file of this photo is smaller" : "";
  const known = [...page.facts.querySelectorAll("dt")].map((dt) => [dt.textContent, dt.nextSibling.textContent]);
  facts([...known, ["AVIF", `${count(avif.blob.size)} bytes${scale}${limit}`]]);
  views.push({ key: "avif", label: `AVIF, ${count(avif.blob.size)} bytes`, url: link(avif.blob) });
  await present();
}

async function decode(data, signal) {
  const here = decoder && (page.local.checked || !service);
  if (!here) {
    if (!service) throw new Error("Nothing here can decode the file.");
    return { blob: await service.decode(data, signal) };
  }
  const painted = await decoder.decodeDlf(data, {
    signal,
    onProgress: ({ stage, done, total }) => {
      if (signal.aborted) return;
      say(STAGES[stage] ?? "Decoding…");
      page.progress.value = total ? done / total : 0;
    },
  });
  const canvas = document.createElement("canvas");
  canvas.width = painted.width;
  canvas.height = painted.height;
  canvas.getContext("2d").putImageData(new ImageData(painted.rgba, painted.width, painted.height), 0, 0);
  page.progress.removeAttribute("value");
  return { blob: await new Promise((resolve) => { canvas.toBlob(resolve, "image/png"); }) };
}

function facts(rows) {
  page.facts.replaceChildren(...rows.map(([term, text]) => {
    const box = document.createElement("div");
    const dt = document.createElement("dt"), dd = document.createElement("dd");
    dt.textContent = term;
    dd.textContent = text;
    box.append(dt, dd);
    return box;
  }));
}

function showMap() {
  page.map.hidden = page.mapText.hidden = !page.mapOn.checked;
}

async function dimensions(blob) {
  const image = await createImageBitmap(blob);
  const { width, height } = image;
  image.close();
  return { width, height };
}

function link(blob) {
  const url = URL.createObjectURL(blob);
  urls.push(url);
  return url;
}

function save(anchor, blob, name) {
  anchor.href = link(blob);
  anchor.download = name;
}

// ---- events

page.file.addEventListener("change", () => {
  take(page.file.files[0]);
  page.file.value = ""; // so that the same file can be chosen again
});
page.form.addEventListener("submit", (event) => {
  event.preventDefault();
  encode();
});
page.quality.addEventListener("input", () => {
  page.qualityValue.textContent = page.quality.value;
  page.byQuality.checked = true;
});
page.bytes.addEventListener("input", () => { page.byBytes.checked = true; });
page.mapOn.addEventListener("change", showMap);
for (const type of ["dragenter", "dragover"]) {
  document.addEventListener(type, (event) => {
    event.preventDefault();
    page.drop.classList.add("over");
  });
}
for (const type of ["dragleave", "drop"]) {
  document.addEventListener(type, (event) => {
    event.preventDefault();
    page.drop.classList.remove("over");
  });
}
document.addEventListener("drop", (event) => take(event.dataTransfer.files[0]));
document.addEventListener("paste", (event) => take(event.clipboardData.files[0]));

const started = start();
