// The map: a canvas of all rows, and a second one above it for what follows the pointer.

const SCALE = 10000; // coordinates in the data
const EDGE = 14; // free pixels around the points
const REACH = 12; // pixels from the pointer within which a row is hit
const SHAPED = 20000; // more rows than this are drawn as plain squares
const field = { base: by("points"), over: by("pointer"), tip: by("tip"), zoom: 1, left: 0, top: 0, width: 0, height: 0, shown: null, at: -1 };
const placed = data.map ? rows.x.flatMap((x, row) => (x >= 0 ? [row] : [])) : [];
const px = new Float32Array(count).fill(-1e6);
const py = new Float32Array(count).fill(-1e6);

function toPixels(x, y) {
  return [
    EDGE + ((x / SCALE) * (field.width - 2 * EDGE) - field.left) * field.zoom,
    EDGE + ((y / SCALE) * (field.height - 2 * EDGE) - field.top) * field.zoom,
  ];
}

/** The colours of the style sheet, which differ in dark mode and on paper. */
function palette() {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  return { page: colour("page"), ink: colour("ink"), faint: colour("faint"), series: [0, 1, 2, 3, 4, 5, 6].map((i) => colour(`c${i}`)) };
}

/** Adds a marker to a path. Five shapes and seven colours give 35 different pairs. */
function outline(path, shape, x, y, r) {
  const corners = [null, [[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]], [[0, -1.3], [1.2, 0.9], [-1.2, 0.9]], [[0, -1.4], [1.1, 0], [0, 1.4], [-1.1, 0]],
    [[0, -1.5], [0.5, -0.5], [1.5, 0], [0.5, 0.5], [0, 1.5], [-0.5, 0.5], [-1.5, 0], [-0.5, -0.5]]][shape];
  if (!corners) return path.moveTo(x + r, y), path.arc(x, y, r, 0, 7);
  corners.forEach(([dx, dy], i) => (i ? path.lineTo(x + r * dx, y + r * dy) : path.moveTo(x + r * dx, y + r * dy)));
  return path.closePath();
}

const radius = () => Math.min((count > SHAPED ? 1.2 : count > 4000 ? 2 : 3) * Math.sqrt(field.zoom), 7);

function resized() {
  const ratio = devicePixelRatio || 1;
  field.width = field.base.clientWidth;
  field.height = field.base.clientHeight;
  for (const canvas of [field.base, field.over]) {
    canvas.width = field.width * ratio;
    canvas.height = field.height * ratio;
    canvas.getContext("2d").setTransform(ratio, 0, 0, ratio, 0, 0);
  }
  drawMap();
}

function drawMap() {
  const context = field.base.getContext("2d");
  const colours = palette();
  const r = radius();
  context.clearRect(0, 0, field.width, field.height);
  const groups = new Map();
  for (const row of placed) {
    [px[row], py[row]] = toPixels(rows.x[row], rows.y[row]);
    if (px[row] < -9 || py[row] < -9 || px[row] > field.width + 9 || py[row] > field.height + 9) continue;
    const number = clusterOf(row);
    groups.get(number)?.push(row) ?? groups.set(number, [row]);
  }
  for (const [number, list] of groups) {
    const path = new Path2D();
    for (const row of list) {
      if (count > SHAPED) path.rect(px[row] - r, py[row] - r, 2 * r, 2 * r);
      else outline(path, number < 0 ? 0 : number % 5, px[row], py[row], r);
    }
    context.globalAlpha = field.shown === null ? 0.75 : field.shown === number ? 1 : 0.1;
    context.fillStyle = number < 0 ? colours.faint : colours.series[number % 7];
    context.fill(path);
  }
  context.globalAlpha = 1;
  drawSelected(context, colours, r);
  drawNumbers(context, colours);
}

function drawSelected(context, colours, r) {
  const path = new Path2D();
  for (const row of selected) path.rect(px[row] - r - 1.5, py[row] - r - 1.5, 2 * r + 3, 2 * r + 3);
  context.strokeStyle = colours.ink;
  context.lineWidth = 1;
  context.globalAlpha = 0.7;
  context.stroke(path);
  context.globalAlpha = 1;
}

function drawNumbers(context, colours) {
  context.font = "700 15px system-ui, sans-serif";
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.lineJoin = "round";
  context.lineWidth = 4;
  context.strokeStyle = colours.page;
  context.fillStyle = colours.ink;
  for (const [number, x, y] of data.labels) {
    if (isGone(number)) continue;
    const place = toPixels(x, y);
    context.strokeText(number, ...place);
    context.fillText(number, ...place);
  }
}

/** Shows one cluster among faint others; the same one again shows all. */
function highlight(number) {
  field.shown = field.shown === number ? null : number;
  changed();
  by("field").scrollIntoView({ block: "nearest" });
  say(field.shown === null ? "The map shows all clusters." : `The map shows ${titleOf(number)}.`);
}

function nearest(x, y, allowed = () => true, reach = REACH) {
  let best = -1;
  let least = reach * reach;
  for (const row of placed) {
    const distance = (px[row] - x) ** 2 + (py[row] - y) ** 2;
    if (distance < least && allowed(row)) [best, least] = [row, distance];
  }
  return best;
}

/** Shows the row under the pointer, with its picture, and the lasso. */
function point(row, lasso = []) {
  const context = field.over.getContext("2d");
  context.clearRect(0, 0, field.width, field.height);
  context.strokeStyle = palette().ink;
  context.lineWidth = 2;
  field.at = row;
  field.tip.hidden = row < 0;
  if (lasso.length > 1) {
    context.beginPath();
    lasso.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
    context.setLineDash([5, 4]);
    context.stroke();
    context.setLineDash([]);
  }
  if (row < 0) return;
  context.beginPath();
  context.arc(px[row], py[row], radius() + 4, 0, 7);
  context.stroke();
  const text = make("span", {}, `${rows.id[row]}, ${titleOf(clusterOf(row))}, ${shareOf(row)}`);
  field.tip.replaceChildren(...[picture(row), text].filter(Boolean));
  const room = field.tip.offsetWidth + 16;
  field.tip.style.left = `${Math.max(0, px[row] + room > field.width ? px[row] - room : px[row] + 14)}px`;
  field.tip.style.top = `${Math.max(0, Math.min(py[row] + 10, field.height - field.tip.offsetHeight))}px`;
}

function inside(polygon, x, y) {
  let odd = false;
  for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i, i += 1) {
    const [ax, ay] = polygon[i];
    const [bx, by] = polygon[j];
    if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) odd = !odd;
  }
  return odd;
}

/** Zooms by a factor, with one pixel kept in its place. A factor of 0 shows everything. */
function zoom(factor, x = field.width / 2, y = field.height / 2) {
  const old = field.zoom;
  field.zoom = factor ? Math.min(Math.max(old * factor, 1), 60) : 1;
  field.left = field.zoom === 1 ? 0 : field.left + (x - EDGE) * (1 / old - 1 / field.zoom);
  field.top = field.zoom === 1 ? 0 : field.top + (y - EDGE) * (1 / old - 1 / field.zoom);
  point(-1);
  changed();
}
