// Elements of the page. Data enters as text only.

export const $ = (id) => document.getElementById(id);

/** An element with properties, attributes (`aria-*`, `role`, `for`) and children. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** A button that calls `press`. */
export function button(text, press, properties = {}) {
  const element = h("button", { type: "button", ...properties }, text);
  element.addEventListener("click", press);
  return element;
}

export const percent = (share) => `${Math.round(share * 100)} %`;
export const plural = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;

/** What went wrong and what to do, with a way to try again. */
export function problemNotice({ title, detail, hint }, again) {
  return h(
    "div",
    { className: "notice error" },
    h("h3", {}, title),
    detail ? h("p", {}, detail) : null,
    hint ? h("p", {}, hint) : null,
    again ? button("Try again", again) : null,
  );
}

/** Tell those who listen to a page instead of looking at it. */
export function say(text) {
  $("status").textContent = text;
}
