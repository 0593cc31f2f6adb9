// Numbers as colored cells, in the colors of the style sheet.

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function prepare(canvas) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(canvas.clientWidth * ratio));
  canvas.height = Math.max(1, Math.round(canvas.clientHeight * ratio));
  return canvas.getContext("2d");
}

// A square of weights from 0 to `scale`; a row for each query.
export function drawMap(canvas, weights, scale, chosen = null, labels = null) {
  const context = prepare(canvas);
  const side = canvas.width / weights.length;
  context.fillStyle = color("--map");
  weights.forEach((row, query) => row.forEach((weight, key) => {
    context.globalAlpha = Math.sqrt(weight / scale); // so that small weights can be seen
    context.fillRect(key * side, query * side, side, side);
  }));
  context.globalAlpha = 1;
  const ratio = window.devicePixelRatio || 1;
  if (labels && side > 8 * ratio) {
    context.fillStyle = color("--dim");
    context.font = `${Math.min(14 * ratio, side * 0.8)}px monospace`;
    context.textAlign = "center";
    // Above the diagonal nothing is attended to, so that the labels are not in the way.
    labels.forEach((label, index) => context.fillText([...label][0], (index + 1.5) * side, (index + 0.7) * side));
  }
  if (chosen) {
    context.strokeStyle = color("--accent");
    context.lineWidth = 2 * ratio;
    context.strokeRect(chosen.key * side, chosen.query * side, side, side);
  }
}

// A thumbnail: one pixel for each weight.
export function drawThumbnail(canvas, weights, scale) {
  canvas.width = canvas.height = weights.length;
  const context = canvas.getContext("2d");
  context.fillStyle = color("--map");
  weights.forEach((row, query) => row.forEach((weight, key) => {
    context.globalAlpha = Math.sqrt(weight / scale);
    context.fillRect(key, query, 1, 1);
  }));
}

// A row of numbers: positive ones in one color, negative ones in another.
export function drawStrip(canvas, values) {
  const context = prepare(canvas);
  const largest = Math.max(...values.map(Math.abs), 1e-9);
  const width = canvas.width / values.length;
  values.forEach((value, index) => {
    context.globalAlpha = Math.abs(value) / largest;
    context.fillStyle = color(value < 0 ? "--negative" : "--map");
    context.fillRect(index * width, 0, Math.max(width, 1), canvas.height);
  });
}
