// A map of where the bits of a file went, drawn over the picture.

import { count } from "./service.js";

// Ten colours from dark to light, of equal steps in lightness, that stay apart without red and green.
const SCALE = [
  [0, 0, 40], [30, 10, 90], [75, 15, 115], [120, 25, 110], [165, 45, 95],
  [205, 70, 75], [235, 105, 50], [250, 150, 30], [250, 200, 60], [252, 255, 165],
];

// spent: as the service tells it; width, height: of the picture.  Returns what the map says, in a sentence.
export function draw(canvas, spent, width, height) {
  const rows = spent.cells.length, columns = spent.cells[0].length;
  const perWindow = spent.window / spent.cell;
  const bits = spent.cells.map((row, y) => row.map((detail, x) => {
    const i = Math.floor(y / perWindow), j = Math.floor(x / perWindow);
    const high = Math.min(perWindow, rows - i * perWindow), wide = Math.min(perWindow, columns - j * perWindow);
    return detail + spent.windows[i][j] / (high * wide);
  }));
  const sorted = bits.flat().sort((a, b) => a - b);
  const least = sorted[0], most = sorted[sorted.length - 1], median = sorted[sorted.length >> 1];
  canvas.width = columns;
  canvas.height = rows;
  // the map covers the padding of the picture as well, which is cut off
  canvas.style.width = `${(100 * columns * spent.cell) / width}%`;
  canvas.style.height = `${(100 * rows * spent.cell) / height}%`;
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  bits.flat().forEach((value, place) => {
    const level = (value - least) / (most - least || 1);
    const colour = SCALE[Math.min(SCALE.length - 1, Math.floor(level * SCALE.length))];
    image.data.set([...colour, 255], 4 * place);
  });
  context.putImageData(image, 0, 0);
  const tokens = spent.windows.flat().reduce((sum, value) => sum + value, 0);
  const details = spent.cells.flat().reduce((sum, value) => sum + value, 0);
  return `Bits of each square of ${spent.cell} pixels, dark to light: ${count(least)} to ${count(most)}, `
    + `half of the squares have ${count(median)} or less. Details take ${count(details)} bits, `
    + `tokens, which are spread over their windows here, ${count(tokens)}.`;
}
