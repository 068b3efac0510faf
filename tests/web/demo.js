// The least that a page does to show .dlf files.
import { decodeDlf, readHeader } from "./decoder/decoder.js";

const [file, said, canvas] = ["file", "said", "canvas"].map((id) => document.getElementById(id));
window.decoder = { decodeDlf, readHeader };
window.stages = [];

file.addEventListener("change", async () => {
  said.textContent = "";
  try {
    const bytes = await file.files[0].arrayBuffer();
    const onProgress = (progress) => window.stages.push(progress);
    const { width, height, rgba, info } = await decodeDlf(bytes, { onProgress });
    Object.assign(canvas, { width, height });
    canvas.getContext("2d").putImageData(new ImageData(rgba, width, height), 0, 0);
    window.info = info;
    said.textContent = `${width}x${height}, ${info.fileBytes} bytes, ${info.modelName}`;
  } catch (error) {
    said.textContent = `${error.kind}: ${error.message}`;
  }
});
