"use strict";
// A scatter plot on a canvas. What comes from the index enters the page as text alone.

const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const canvas = $("map"), card = $("point"), brush = canvas.getContext("2d");
const n = data.ids.length;
const MARGIN = 28, MOST_ZOOM = 60, REACH = { mouse: 12, touch: 26, pen: 18 };

// Drawn in this order: what has no category lies below, and large categories below small ones.
const order = [...Array(n).keys()].sort((a, b) => depth(b) - depth(a) || a - b);
const words = data.ids.map((id, i) => [id, data.captions[i] ?? "", data.groups[i] ?? "",
  ...data.held[i].flatMap((j) => data.concepts[j])].join("\n").toLowerCase());
const dark = matchMedia("(prefers-color-scheme: dark)");
const hidden = new Set();
const view = { zoom: 1, x: 0, y: 0 }; // of the whole map, in pixels of the page
let found = null; // a Set of points, while something is looked for
let current = null, kept = false, width = 0, height = 0, waiting = false;

function depth(i) {
  const category = data.category[i];
  return category === data.legend.length - 1 ? Infinity : data.legend[category].points;
}

function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

// Where points are

const largest = (values) => values.reduce((a, b) => Math.max(a, b), 0);
const xMost = largest(data.x), yMost = largest(data.y); // the smallest is 0

/** The place of a point on the canvas. */
function at(i) {
  const scale = Math.min((width - 2 * MARGIN) / (xMost || 1), (height - 2 * MARGIN) / (yMost || 1));
  return [
    view.x + view.zoom * (width / 2 + (data.x[i] - xMost / 2) * scale),
    view.y + view.zoom * (height / 2 - (data.y[i] - yMost / 2) * scale),
  ];
}

const seen = (i) => !hidden.has(data.category[i]) && (found === null || found.has(i));

/** The nearest point that `counts` within `reach` pixels of a place, or null. */
function nearest(x, y, reach, counts = () => true) {
  let best = null, least = reach * reach;
  for (const i of order) {
    if (!seen(i)) continue;
    const [px, py] = at(i);
    const distance = (px - x) ** 2 + (py - y) ** 2;
    if (distance <= least && counts(px - x, py - y)) [best, least] = [i, distance];
  }
  return best;
}

// Drawing

function redraw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; draw(); });
}

function draw() {
  const ratio = devicePixelRatio || 1;
  brush.setTransform(ratio, 0, 0, ratio, 0, 0);
  brush.clearRect(0, 0, width, height);
  const theme = dark.matches ? 1 : 0;
  const radius = Math.max(2.4, Math.min(5, 120 / Math.sqrt(n))) * Math.min(2.5, view.zoom ** 0.4);
  brush.strokeStyle = data.edge[theme];
  brush.lineWidth = 0.6;
  for (const i of order) {
    if (hidden.has(data.category[i])) continue;
    const [x, y] = at(i);
    if (x < -9 || y < -9 || x > width + 9 || y > height + 9) continue;
    const { colours, form } = data.legend[data.category[i]];
    brush.globalAlpha = found !== null && !found.has(i) ? 0.1 : 0.85;
    brush.fillStyle = colours[theme];
    brush.beginPath();
    for (const [dx, dy] of form) brush.lineTo(x + radius * dx, y - radius * dy);
    brush.closePath();
    brush.fill();
    brush.stroke();
  }
  brush.globalAlpha = 1;
  if (current === null) return;
  const [x, y] = at(current);
  brush.strokeStyle = getComputedStyle(document.body).color;
  brush.lineWidth = 2;
  brush.beginPath();
  brush.arc(x, y, radius * 2 + 3, 0, 2 * Math.PI);
  brush.stroke();
  place(x, y, radius * 2 + 10);
}

/** Puts the card beside a point, within the plot. */
function place(x, y, away) {
  const [w, h] = [card.offsetWidth, card.offsetHeight];
  let left = x + away + w > width ? x - away - w : x + away, top = y - h / 2;
  if (left < 0 || left + w > width) [left, top] = [0, y > height / 2 ? 0 : height]; // too narrow
  card.style.left = `${Math.max(4, Math.min(width - w - 4, left))}px`;
  card.style.top = `${Math.max(4, Math.min(height - h - 4, top))}px`;
}

// One point

function show(i, keep = false) {
  if (i === current && keep === kept) return;
  current = i;
  kept = keep && i !== null;
  card.hidden = i === null;
  card.classList.toggle("kept", kept);
  if (i !== null) card.replaceChildren(...describe(i));
  redraw();
}

function describe(i) {
  const shown = [], parts = [];
  if (data.pictures[i]) {
    const picture = element("img");
    picture.src = `data:image/jpeg;base64,${data.pictures[i]}`;
    picture.alt = `Small picture of ${data.ids[i]}`;
    picture.addEventListener("load", redraw);
    shown.push(picture);
  }
  parts.push(element("h3", "", data.ids[i]));
  const concepts = data.held[i].map((j) => {
    const [cui, name] = data.concepts[j];
    return name ? element("li", "", `${name} `, element("span", "muted", cui)) : element("li", "", cui);
  });
  parts.push(concepts.length ? element("ul", "", ...concepts) : element("p", "muted", "no concepts"));
  if (data.captions[i]) parts.push(element("p", "", data.captions[i]));
  if (data.by !== "concept" && data.by !== "group") {
    parts.push(element("p", "muted", `${data.by}: ${data.legend[data.category[i]].label}`));
  }
  if (data.groups[i]) parts.push(element("p", "muted", `group: ${data.groups[i]}`));
  return [...shown, element("div", "", ...parts)];
}

// Moving about

function zoom(by, x = width / 2, y = height / 2) {
  const next = Math.max(1, Math.min(MOST_ZOOM, view.zoom * by));
  if (next === 1) [view.x, view.y] = [0, 0];
  else {
    view.x = x - (x - view.x) * (next / view.zoom);
    view.y = y - (y - view.y) * (next / view.zoom);
  }
  view.zoom = next;
  canvas.style.touchAction = next > 1 ? "none" : "pan-y"; // the page scrolls while all is seen
  redraw();
}

function step(dx, dy) {
  const [x, y] = current === null ? [width / 2, height / 2] : at(current);
  const ahead = (px, py) => px * dx + py * dy > 0.5 && px * dx + py * dy >= Math.abs(px * dy + py * dx);
  const next = nearest(x, y, Infinity, current === null ? undefined : ahead);
  if (next === null) return;
  const [px, py] = at(next);
  if (px < 0 || py < 0 || px > width || py > height) {
    view.x += width / 2 - px;
    view.y += height / 2 - py;
  }
  show(next, true);
}

const KEYS = {
  ArrowLeft: () => step(-1, 0), ArrowRight: () => step(1, 0),
  ArrowUp: () => step(0, -1), ArrowDown: () => step(0, 1),
  Escape: () => show(null), "+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(1 / 1.5), 0: () => zoom(0),
};

canvas.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key]) return;
  event.preventDefault();
  KEYS[event.key]();
});

let held = null; // where the pointer went down

canvas.addEventListener("pointerdown", (event) => {
  held = { x: event.offsetX, y: event.offsetY, moved: false };
  canvas.setPointerCapture(event.pointerId);
});
canvas.addEventListener("pointermove", (event) => {
  const { offsetX: x, offsetY: y } = event;
  if (held === null) {
    const i = nearest(x, y, REACH.mouse);
    canvas.classList.toggle("on-point", i !== null);
    if (!kept) show(i);
    return;
  }
  if (!held.moved && Math.hypot(x - held.x, y - held.y) < 4) return;
  view.x += x - held.x;
  view.y += y - held.y;
  held = { x, y, moved: true };
  canvas.classList.add("moving");
  redraw();
});
canvas.addEventListener("pointerup", (event) => {
  const moved = held === null || held.moved;
  held = null;
  canvas.classList.remove("moving");
  if (moved) return;
  const i = nearest(event.offsetX, event.offsetY, REACH[event.pointerType] ?? REACH.mouse);
  show(i, true);
});
canvas.addEventListener("pointercancel", () => { held = null; canvas.classList.remove("moving"); });
canvas.addEventListener("pointerleave", () => { if (!kept) show(null); });
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), event.offsetX, event.offsetY);
}, { passive: false });

$("nearer").addEventListener("click", () => zoom(1.5));
$("farther").addEventListener("click", () => zoom(1 / 1.5));
$("whole").addEventListener("click", () => zoom(0));

// The legend, and looking for something

function swatch({ form, colours }) {
  const make = (tag) => document.createElementNS("http://www.w3.org/2000/svg", tag);
  const svg = make("svg"), shape = make("polygon");
  svg.setAttribute("viewBox", "-2 -2 4 4");
  svg.setAttribute("aria-hidden", "true");
  shape.setAttribute("points", form.map(([x, y]) => `${x},${-y}`).join(" "));
  shape.setAttribute("stroke-width", "0.15");
  const paint = () => {
    shape.setAttribute("fill", colours[dark.matches ? 1 : 0]);
    shape.setAttribute("stroke", data.edge[dark.matches ? 1 : 0]);
  };
  dark.addEventListener("change", paint);
  paint();
  svg.append(shape);
  return svg;
}

data.legend.forEach((entry, category) => {
  if (!entry.points && category === data.legend.length - 1) return;
  const name = element("span", "name", entry.label);
  if (entry.cui) name.append(element("span", "cui", entry.cui));
  const of = entry.held === entry.points ? "" : ` of ${entry.held.toLocaleString("en")}`;
  const count = element("span", "count", entry.points.toLocaleString("en") + of);
  const button = element("button", "", swatch(entry), name, count);
  button.type = "button";
  button.setAttribute("aria-pressed", "true");
  button.addEventListener("click", () => {
    if (!hidden.delete(category)) hidden.add(category);
    button.setAttribute("aria-pressed", String(!hidden.has(category)));
    if (current !== null && !seen(current)) show(null);
    redraw();
  });
  $("legend").append(element("li", "", button));
});

$("find").addEventListener("input", (event) => {
  const wanted = event.target.value.trim().toLowerCase();
  found = wanted ? new Set([...words.keys()].filter((i) => words[i].includes(wanted))) : null;
  $("found").textContent = found === null ? "" : `${found.size.toLocaleString("en")} of ${n.toLocaleString("en")}`;
  if (current !== null && !seen(current)) show(null);
  redraw();
});

dark.addEventListener("change", redraw);
new ResizeObserver(() => {
  const ratio = devicePixelRatio || 1;
  [width, height] = [canvas.clientWidth, canvas.clientHeight];
  [canvas.width, canvas.height] = [width * ratio, height * ratio];
  zoom(1);
}).observe(canvas);
