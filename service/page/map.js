// The map of the images that are listed: points, of which a lasso or a frame chooses some.

import { plural, say } from "./dom.js";

const SIZE = 9999; // of coordinates, x to the right and y upwards
const MARGIN = 8; // pixels around the points
const APART = 4; // pixels between the corners of a lasso, at least
const CORNERS = 60; // of a lasso, at most
const STEP = 250; // that a frame moves or grows by

const COMMANDS = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, 1],
  ArrowDown: [0, -1],
};

/** In `box`, which takes keys. `choose(corners)` gets [[x, y], …], or nothing for no region. */
export class RegionMap {
  #box;
  #canvas = document.createElement("canvas");
  #choose;
  #x = [];
  #y = [];
  #region = [];
  #lasso = null; // while it is drawn
  #frame = null; // { x, y, width, height } of its middle, moved by keys

  constructor(box, choose) {
    this.#box = box;
    this.#choose = choose;
    box.replaceChildren(this.#canvas);
    this.#canvas.setAttribute("aria-hidden", "true");
    new ResizeObserver(() => this.#draw()).observe(box);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#draw());
    this.#canvas.addEventListener("pointerdown", (event) => this.#start(event));
    this.#canvas.addEventListener("pointermove", (event) => this.#move(event));
    this.#canvas.addEventListener("pointerup", () => this.#end());
    this.#canvas.addEventListener("pointercancel", () => this.#end());
    box.addEventListener("keydown", (event) => this.#onKey(event));
  }

  /** Show points, and the region that is chosen: [[x, y], …], or []. */
  show({ x, y }, region) {
    [this.#x, this.#y, this.#region, this.#frame] = [x, y, region, null];
    this.#draw();
  }

  set region(region) {
    [this.#region, this.#frame] = [region, null];
    this.#draw();
  }

  // Places on the canvas

  #scale() {
    const { clientWidth, clientHeight } = this.#box;
    return [(clientWidth - 2 * MARGIN) / SIZE, (clientHeight - 2 * MARGIN) / SIZE];
  }

  #toPixels([x, y]) {
    const [across, up] = this.#scale();
    return [MARGIN + x * across, this.#box.clientHeight - MARGIN - y * up];
  }

  #toMap({ offsetX, offsetY }) {
    const [across, up] = this.#scale();
    const place = [(offsetX - MARGIN) / across, (this.#box.clientHeight - MARGIN - offsetY) / up];
    return place.map((value) => within(Math.round(value), 0));
  }

  #draw() {
    const { clientWidth: width, clientHeight: height } = this.#box;
    if (!width || !height) return; // it is not shown
    const sharp = devicePixelRatio || 1;
    [this.#canvas.width, this.#canvas.height] = [width * sharp, height * sharp];
    const pen = this.#canvas.getContext("2d");
    pen.scale(sharp, sharp);
    pen.fillStyle = pen.strokeStyle = getComputedStyle(this.#box).color;
    const [across, up] = this.#scale();
    const side = this.#x.length > 5000 ? 2 : 4;
    pen.globalAlpha = this.#x.length > 5000 ? 0.35 : 0.7;
    for (let i = 0; i < this.#x.length; i++) {
      const [left, top] = [MARGIN + this.#x[i] * across, height - MARGIN - this.#y[i] * up];
      pen.fillRect(left - side / 2, top - side / 2, side, side);
    }
    this.#outline(pen, this.#lasso ?? this.#region, []);
    if (this.#frame) this.#outline(pen, cornersOf(this.#frame), [6, 4]);
  }

  #outline(pen, corners, dashes) {
    if (corners.length < 2) return;
    pen.beginPath();
    for (const corner of corners) pen.lineTo(...this.#toPixels(corner));
    pen.closePath();
    pen.globalAlpha = 0.15;
    pen.fill();
    pen.globalAlpha = 1;
    pen.lineWidth = 2;
    pen.setLineDash(dashes);
    pen.stroke();
    pen.setLineDash([]);
  }

  // A lasso

  #start(event) {
    if (event.button !== 0) return;
    this.#canvas.setPointerCapture(event.pointerId);
    [this.#lasso, this.#frame] = [[this.#toMap(event)], null];
  }

  #move(event) {
    if (!this.#lasso) return;
    const [x, y] = this.#toPixels(this.#lasso.at(-1));
    if (Math.hypot(event.offsetX - x, event.offsetY - y) < APART) return;
    this.#lasso.push(this.#toMap(event));
    this.#draw();
  }

  #end() {
    const drawn = this.#lasso;
    this.#lasso = null;
    if (drawn && drawn.length >= 3) this.#choose(fewer(drawn));
    else this.#draw();
  }

  // A frame

  #onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const frame = this.#frame ?? { x: SIZE / 2, y: SIZE / 2, width: SIZE / 4, height: SIZE / 4 };
    if (event.key in COMMANDS) {
      const [right, up] = COMMANDS[event.key];
      if (event.shiftKey) {
        frame.width = within(frame.width + 2 * STEP * right, 2 * STEP);
        frame.height = within(frame.height + 2 * STEP * up, 2 * STEP);
      } else {
        frame.x = within(frame.x + STEP * right, 0);
        frame.y = within(frame.y + STEP * up, 0);
      }
      this.#frame = frame;
      this.#draw();
      say(`${plural(this.#inside(cornersOf(frame)), "image")} in the frame.`);
    } else if (event.key === "Enter" && this.#frame) this.#choose(cornersOf(this.#frame));
    else if (event.key === "Escape" && (this.#frame || this.#region.length)) this.#choose([]);
    else return;
    event.preventDefault();
  }

  #inside([[left, low], , [right, high]]) {
    let n = 0;
    for (let i = 0; i < this.#x.length; i++) {
      n += left <= this.#x[i] && this.#x[i] < right && low <= this.#y[i] && this.#y[i] < high;
    }
    return n;
  }
}

const within = (value, least) => Math.min(Math.max(value, least), SIZE);

/** A frame's corners: the lower left one first, and once around. */
function cornersOf({ x, y, width, height }) {
  const [left, right] = [x - width / 2, x + width / 2].map((value) => Math.round(within(value, 0)));
  const [low, high] = [y - height / 2, y + height / 2].map((value) => Math.round(within(value, 0)));
  return [[left, low], [right, low], [right, high], [left, high]];
}

/** An even choice of the corners of a lasso. */
function fewer(corners) {
  const n = Math.min(corners.length, CORNERS);
  return Array.from({ length: n }, (_, i) => corners[Math.floor((i * corners.length) / n)]);
}
