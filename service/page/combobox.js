// A field that suggests concepts by their names (the combobox pattern of ARIA 1.2).

import { h } from "./dom.js";

const PAUSE_MS = 120; // of typing, before names are fetched
let made = 0;

/**
 * `find(text)` fetches [{ cui, name, images }], `choose(concept)` is told of the one that was
 * chosen, `leave()` that the reader is done. A text that no concept is called may be a new label:
 * { cui: text, name: text, isNew: true }.
 */
export function combobox(text, find, choose, leave) {
  const id = `combobox-${++made}`;
  const list = h("ul", { id, role: "listbox", "aria-label": "Concepts found", hidden: true });
  const input = h("input", {
    type: "text",
    role: "combobox",
    autocomplete: "off",
    spellcheck: false,
    maxLength: 200,
    placeholder: "by name or CUI",
    "aria-autocomplete": "list",
    "aria-expanded": "false",
    "aria-controls": id,
  });
  let options = [];
  let asked = ""; // what the options answer
  let at = -1;
  let typing = null;

  function close() {
    clearTimeout(typing);
    options = [];
    at = -1;
    list.hidden = true;
    list.replaceChildren();
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  }

  function mark(next) {
    at = next;
    [...list.children].forEach((option, i) => option.setAttribute("aria-selected", i === at));
    const marked = list.children[at];
    marked?.scrollIntoView({ block: "nearest" });
    if (marked) input.setAttribute("aria-activedescendant", marked.id);
    else input.removeAttribute("aria-activedescendant");
  }

  async function suggest() {
    const typed = input.value.trim();
    if (!typed) return close();
    let found;
    try {
      found = await find(typed);
    } catch {
      return close(); // suggestions are a help; saving says what is wrong
    }
    if (input.value.trim() !== typed || document.activeElement !== input) return;
    const same = (name) => name.toLowerCase() === typed.toLowerCase();
    asked = typed;
    options = found.some(({ cui, name }) => same(cui) || same(name))
      ? found
      : [...found, { cui: typed, name: typed, isNew: true }];
    list.replaceChildren(...options.map(shown));
    list.hidden = false;
    input.setAttribute("aria-expanded", "true");
    mark(0);
  }

  function shown({ cui, name, images, isNew }, i) {
    const option = isNew
      ? h("li", { role: "option", id: `${id}-${i}` }, `New label “${name}”`)
      : h("li", { role: "option", id: `${id}-${i}` }, name || "(no name)", " ", h("code", {}, cui),
          ` ${images.toLocaleString("en")}`);
    option.addEventListener("pointerdown", (event) => {
      event.preventDefault(); // the field keeps the focus
      take(i);
    });
    return option;
  }

  function take(i) {
    const chosen = options[i];
    input.value = "";
    close();
    choose(chosen);
  }

  input.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(suggest, PAUSE_MS);
  });
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    const n = options.length;
    const isOld = input.value.trim() !== asked; // nobody has seen yet what would be taken
    if (event.key === "ArrowDown" && n) mark((at + 1) % n);
    else if (event.key === "ArrowUp" && n) mark((at + n - 1) % n);
    else if (event.key === "Enter" && n && !isOld) take(Math.max(at, 0));
    else if (event.key === "Enter" && input.value.trim()) suggest();
    else if (event.key === "Escape" && n) close();
    else if (event.key === "Escape" || event.key === "Enter") leave();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  const element = h("div", { className: "combobox" }, h("label", {}, h("span", {}, text), input), list);
  return { element, input };
}
