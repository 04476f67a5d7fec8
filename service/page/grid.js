// A grid of very many cells, of which only those in sight are there (virtual scrolling).

import { h } from "./dom.js";

const AHEAD = 2; // rows above and below those in sight
const SETTLE_MS = 90; // of scrolling, before pictures are fetched

/**
 * A listbox in `scroller`. `cell(i)` makes the inside of the i-th cell, or null while it is not
 * known; `want(from, to)` is told which are in sight, `settle(from, to)` once scrolling has paused;
 * `act(i)` opens one, `mark()` is told of a changed selection.
 */
export class Grid {
  #scroller;
  #list;
  #calls;
  #cells = new Map(); // number -> element
  #total = 0;
  #across = 1;
  #size = { width: 1, height: 1 };
  #timer = null;
  #drawing = false;
  at = 0; // the one that keys are for
  selected = new Set(); // numbers

  constructor(scroller, label, calls) {
    this.#scroller = scroller;
    this.#calls = calls;
    this.#list = h("div", {
      role: "listbox",
      className: "grid",
      "aria-label": label,
      "aria-multiselectable": "true",
    });
    scroller.replaceChildren(this.#list);
    scroller.addEventListener("scroll", () => this.#soon(), { passive: true });
    new ResizeObserver(() => this.#soon()).observe(scroller);
    this.#list.addEventListener("keydown", (event) => this.#onKey(event));
    this.#list.addEventListener("click", (event) => {
      const cell = event.target.closest("[role=option]");
      if (cell) this.#clicked(Number(cell.dataset.number), event);
    });
    this.#list.addEventListener("dblclick", (event) => {
      const cell = event.target.closest("[role=option]");
      if (cell) calls.act(Number(cell.dataset.number));
    });
  }

  /** Show so many cells, from the beginning. */
  reset(total) {
    this.#total = total;
    this.at = 0;
    this.selected.clear();
    this.#clear();
    this.#scroller.scrollTop = 0;
    this.draw();
  }

  /** Draw again what has become known of the cells in sight. */
  refresh() {
    for (const [i, cell] of this.#cells) if (!cell.dataset.known) this.#cells.delete(i) && cell.remove();
    this.draw();
  }

  get position() {
    return this.#scroller.scrollTop;
  }

  set position(value) {
    this.#scroller.scrollTop = value;
    this.draw();
  }

  element(i) {
    return this.#cells.get(i);
  }

  draw() {
    this.#drawing = false;
    const style = getComputedStyle(this.#list);
    const [width, height] = ["--cell-width", "--cell-height"].map((name) => parseFloat(style.getPropertyValue(name)));
    const inside = this.#list.clientWidth;
    if (!inside) return; // out of sight
    const across = Math.max(1, Math.floor(inside / width));
    const size = { width: inside / across, height };
    if (size.width !== this.#size.width || height !== this.#size.height) this.#clear();
    this.#across = across;
    this.#size = size;
    this.#list.style.height = `${Math.ceil(this.#total / across) * height}px`;
    const first = Math.max(0, Math.floor(this.#scroller.scrollTop / height) - AHEAD);
    const rows = Math.ceil(this.#scroller.clientHeight / height) + 2 * AHEAD;
    const from = first * across;
    const to = Math.min(this.#total, (first + rows) * across);
    this.#calls.want(from, to);
    for (const [i, cell] of this.#cells) {
      if ((i < from || i >= to) && !cell.contains(document.activeElement)) {
        cell.remove();
        this.#cells.delete(i);
      }
    }
    for (let i = from; i < to; i++) if (!this.#cells.has(i)) this.#add(i);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#calls.settle(from, to), SETTLE_MS);
  }

  /** Make a cell the one that keys are for, and bring it into sight. */
  focus(i) {
    const before = this.#cells.get(this.at);
    if (before) before.tabIndex = -1;
    this.at = Math.min(Math.max(i, 0), this.#total - 1);
    const top = Math.floor(this.at / this.#across) * this.#size.height;
    const { scrollTop, clientHeight } = this.#scroller;
    if (top < scrollTop) this.#scroller.scrollTop = top;
    else if (top + this.#size.height > scrollTop + clientHeight) {
      this.#scroller.scrollTop = top + this.#size.height - clientHeight;
    }
    this.draw();
    const cell = this.#cells.get(this.at);
    if (!cell) return;
    cell.tabIndex = 0;
    cell.focus({ preventScroll: true });
  }

  select(numbers) {
    for (const i of this.selected) this.#cells.get(i)?.setAttribute("aria-selected", "false");
    this.selected = new Set(numbers);
    for (const i of this.selected) this.#cells.get(i)?.setAttribute("aria-selected", "true");
    this.#calls.mark();
  }

  #soon() {
    if (this.#drawing) return;
    this.#drawing = true;
    requestAnimationFrame(() => this.draw());
  }

  #clear() {
    for (const cell of this.#cells.values()) cell.remove();
    this.#cells.clear();
  }

  #add(i) {
    const inside = this.#calls.cell(i);
    const cell = h("div", {
      role: "option",
      className: "grid-cell",
      tabIndex: i === this.at ? 0 : -1,
      "aria-selected": String(this.selected.has(i)),
      "aria-setsize": this.#total,
      "aria-posinset": i + 1,
      "data-number": i,
    });
    if (inside) {
      cell.append(...inside);
      cell.dataset.known = "yes";
    } else cell.setAttribute("aria-label", "…");
    cell.style.width = `${this.#size.width}px`;
    const [row, column] = [Math.floor(i / this.#across), i % this.#across];
    cell.style.transform = `translate(${column * this.#size.width}px, ${row * this.#size.height}px)`;
    this.#cells.set(i, cell);
    this.#list.append(cell);
  }

  #toggle(i) {
    const next = new Set(this.selected);
    if (!next.delete(i)) next.add(i);
    this.select(next);
  }

  #clicked(i, { shiftKey }) {
    const from = this.at;
    this.focus(i);
    if (!shiftKey) return this.#toggle(i);
    const [low, high] = from < i ? [from, i] : [i, from];
    this.select([...this.selected, ...Array.from({ length: high - low + 1 }, (_, n) => low + n)]);
  }

  #onKey(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const page = Math.max(1, Math.floor(this.#scroller.clientHeight / this.#size.height)) * this.#across;
    const to = {
      ArrowRight: this.at + 1,
      ArrowLeft: this.at - 1,
      ArrowDown: this.at + this.#across,
      ArrowUp: this.at - this.#across,
      PageDown: this.at + page,
      PageUp: this.at - page,
      Home: 0,
      End: this.#total - 1,
    }[event.key];
    if (to !== undefined) {
      const from = this.at;
      this.focus(to);
      if (event.shiftKey) this.select([...this.selected, from, this.at]);
    } else if (event.key === " ") this.#toggle(this.at);
    else if (event.key === "Enter") this.#calls.act(this.at);
    else return;
    event.preventDefault();
  }
}
