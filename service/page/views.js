// Which view is shown: the address's fragment names it, so that links and Back work.

import { $ } from "./dom.js";

const views = new Map(); // name -> what to do when it is opened
const USUAL = "annotate";

/** A view, which is the element NAME-view. `opened(rest)` gets what follows its name. */
export function addView(name, opened = () => {}) {
  views.set(name, opened);
}

export const address = (name, rest = "") => `#${name}${rest && `/${encodeURIComponent(rest)}`}`;

/** Open a view: a new entry in the history. */
export function open(name, rest = "") {
  if (location.hash === address(name, rest)) show();
  else location.hash = address(name, rest);
}

/** Name what is shown in the address, without a new entry. */
export function rename(name, rest) {
  history.replaceState(null, "", address(name, rest));
}

export function startViews() {
  window.addEventListener("hashchange", show);
  show();
}

function show() {
  const [first, rest = ""] = location.hash.slice(1).split("/");
  const name = views.has(first) ? first : USUAL;
  for (const other of views.keys()) {
    $(`${other}-view`).hidden = other !== name;
    const link = document.querySelector(`nav a[href="#${other}"]`);
    if (other === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = name === USUAL ? "annotator" : `annotator: ${name}`;
  views.get(name)(decoded(rest));
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return ""; // somebody has typed it
  }
}
