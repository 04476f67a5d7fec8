// Pictures that the server renders: which frame, and which window of its values, the reader says.

import { button, h } from "./dom.js";

const STEPS = 200; // of the sliders over a range of values that are no integers

/**
 * Show an image through `view` (see `viewer`). `ask({ frame, center, width })` fetches a picture:
 * { url, frame, frames, low, high, center, width }. Returns the controls, hidden until it is there.
 */
export function rendering(ask, view) {
  const controls = h("div", { className: "rendering", hidden: true });
  let wanted = {};
  let running = false;
  let stale = false; // another one is wanted than is being fetched
  let sliders = null;
  let url = null;

  async function draw() {
    stale = running;
    if (running) return;
    running = true;
    try {
      do {
        stale = false;
        const drawn = await ask(wanted);
        if (url) URL.revokeObjectURL(url);
        url = drawn.url;
        view.show(url);
        sliders ??= makeSliders(drawn, controls, change);
        for (const slider of sliders) slider.paint(drawn);
        controls.hidden = false;
      } while (stale);
    } catch (problem) {
      view.say(problem.title);
    } finally {
      running = false;
    }
  }

  function change(values) {
    wanted = values === null ? { frame: wanted.frame } : { ...wanted, ...values };
    draw();
  }

  draw();
  return controls;
}

/** Sliders for frame, centre and width; `change(values)` is told what is wanted, null for a reset. */
function makeSliders(drawn, controls, change) {
  let last = drawn;
  const whole = Number.isInteger(drawn.low) && Number.isInteger(drawn.high);
  const step = whole ? 1 : Math.max(drawn.high - drawn.low, 1e-6) / STEPS;
  const span = Math.max(drawn.high - drawn.low, drawn.width, step);
  const made = [];
  if (drawn.frames > 1) {
    const text = ({ frame, frames }) => `${frame + 1} of ${frames}`;
    const place = { min: 0, max: drawn.frames - 1, step: 1 };
    made.push(slider("Frame", place, "frame", text, (frame) => change({ frame })));
  }
  const low = Math.min(drawn.low, drawn.center);
  const high = Math.max(drawn.high, drawn.center);
  made.push(
    slider("Window centre", { min: low, max: high, step }, "center", rounded("center"), (center) =>
      change({ center, width: last.width }),
    ),
    slider("Window width", { min: step, max: span, step }, "width", rounded("width"), (width) =>
      change({ width, center: last.center }),
    ),
  );
  controls.append(
    ...made.map(({ label }) => label),
    button("Back to the file's window", () => change(null), { className: "quiet" }),
  );
  made.push({ paint: (now) => (last = now) });
  return made;
}

const rounded = (name) => (drawn) => String(Math.round(drawn[name] * 100) / 100);

function slider(text, range, name, written, change) {
  const input = h("input", { type: "range", ...range });
  const output = h("output");
  input.addEventListener("input", () => change(Number(input.value)));
  return {
    label: h("label", {}, h("span", {}, text), input, output),
    paint(drawn) {
      if (document.activeElement !== input) input.value = drawn[name];
      output.textContent = written(drawn);
      input.setAttribute("aria-valuetext", written(drawn));
    },
  };
}
