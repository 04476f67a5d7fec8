// Pictures that can be zoomed and moved, alone or together.

import { button, h } from "./dom.js";

const LARGEST = 16; // times the size that fits
const STEP = 1.25;
const NUDGE = 0.1; // of the frame

/** The part of their pictures that some viewers show: the same one of each. */
export class Lens {
  scale = 1;
  x = 0; // of the picture's middle from the frame's, in widths of the frame
  y = 0;
  #pictures = new Set();

  follow(picture) {
    this.#pictures.add(picture);
    this.#paint(picture);
  }

  /** Enlarge; what lies at (x, y), from the frame's middle, stays there. */
  zoom(factor, x = 0, y = 0) {
    const scale = Math.min(Math.max(this.scale * factor, 1), LARGEST);
    const by = scale / this.scale;
    this.scale = scale;
    this.#place(x - by * (x - this.x), y - by * (y - this.y));
  }

  move(x, y) {
    this.#place(this.x + x, this.y + y);
  }

  reset() {
    this.scale = 1;
    this.#place(0, 0);
  }

  /** Zoom or move by a key: + - 0, and the arrows with Shift; whether it was one of them. */
  press({ key, shiftKey }) {
    if (key === "+" || key === "=") this.zoom(STEP);
    else if (key === "-") this.zoom(1 / STEP);
    else if (key === "0") this.reset();
    else if (shiftKey && key === "ArrowLeft") this.move(NUDGE, 0);
    else if (shiftKey && key === "ArrowRight") this.move(-NUDGE, 0);
    else if (shiftKey && key === "ArrowUp") this.move(0, NUDGE);
    else if (shiftKey && key === "ArrowDown") this.move(0, -NUDGE);
    else return false;
    return true;
  }

  /** Buttons for those who have no wheel. */
  buttons() {
    return h(
      "div",
      { className: "row zoom", role: "group", "aria-label": "Zoom" },
      button("−", () => this.zoom(1 / STEP), { "aria-label": "Zoom out" }),
      button("+", () => this.zoom(STEP), { "aria-label": "Zoom in" }),
      button("Fit", () => this.reset()),
    );
  }

  #place(x, y) {
    const most = (this.scale - 1) / 2; // so that the frame stays filled
    this.x = Math.min(Math.max(x, -most), most);
    this.y = Math.min(Math.max(y, -most), most);
    for (const picture of this.#pictures) {
      if (picture.isConnected) this.#paint(picture);
      else this.#pictures.delete(picture);
    }
  }

  #paint(picture) {
    picture.style.transform = `translate(${this.x * 100}%, ${this.y * 100}%) scale(${this.scale})`;
    picture.parentElement?.classList.toggle("zoomed", this.scale > 1);
  }
}

/**
 * A frame that shows a picture through a lens. `show(src)` shows one, `say(text)` says why there
 * is none.
 */
export function viewer(alt, lens) {
  const picture = h("img", { alt, decoding: "async", draggable: false, hidden: true });
  const note = h("span", { className: "viewer-note" });
  const frame = h("div", { className: "viewer" }, picture, note);
  lens.follow(picture);
  listen(frame, lens);
  return {
    frame,
    show(src) {
      picture.src = src;
      picture.hidden = false;
      note.textContent = "";
      lens.follow(picture);
    },
    say(text) {
      picture.hidden = true;
      note.textContent = text;
    },
  };
}

function listen(frame, lens) {
  const fingers = new Map(); // pointer -> where it is, from the frame's middle
  const at = ({ clientX, clientY }) => {
    const { left, top, width, height } = frame.getBoundingClientRect();
    return [(clientX - left) / width - 0.5, (clientY - top) / height - 0.5];
  };
  frame.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      lens.zoom(2 ** (-event.deltaY / 400), ...at(event));
    },
    { passive: false },
  );
  frame.addEventListener("dblclick", (event) => {
    if (lens.scale > 1) lens.reset();
    else lens.zoom(3, ...at(event));
  });
  frame.addEventListener("pointerdown", (event) => {
    fingers.set(event.pointerId, at(event));
    frame.setPointerCapture(event.pointerId);
  });
  frame.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const now = at(event);
    const other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
    if (other) lens.zoom(distance(now, other) / (distance(before, other) || 1), ...other);
    else lens.move(now[0] - before[0], now[1] - before[1]);
    fingers.set(event.pointerId, now);
  });
  for (const end of ["pointerup", "pointercancel"]) {
    frame.addEventListener(end, ({ pointerId }) => fingers.delete(pointerId));
  }
}

const distance = ([a, b], [c, d]) => Math.hypot(a - c, b - d);
