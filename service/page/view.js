// What is seen of one image: its tab in the strip and its panel.

import { picture, render } from "./api.js";
import { h, button as plainButton, percent, plural, problemNotice } from "./dom.js";
import { rendering } from "./rendering.js";
import { Lens, viewer } from "./viewer.js";

const doubtful = ({ concepts }) => concepts.filter(({ rival }) => rival !== null).length;

/** The state of an image in a few words. */
export function stateOf(item) {
  if (item.state === "done" && item.answer.result.unfamiliar) return "resembles nothing";
  return {
    waiting: () => "waiting",
    sending: () => "annotating…",
    busy: () => `server busy, again in ${item.wait} s`,
    done: () => {
      const { result } = item.answer;
      const doubts = doubtful(result);
      return plural(result.concepts.length, "concept") + (doubts ? `, ${doubts} in doubt` : "");
    },
    failed: () => "failed",
  }[item.state]();
}

const PANEL = { side: 1600 };
const TAB = { side: 192, format: "jpeg" };

/** A small picture; where the browser cannot show the file (DICOM, TIFF), the server's, or a tile. */
function preview(item) {
  const extension = /\.([a-z0-9]{1,5})$/i.exec(item.file.name)?.[1] ?? "image";
  const tile = h("span", { className: "tile" }, extension.toUpperCase());
  const image = h("img", { src: item.url, alt: "", decoding: "async" });
  image.addEventListener("error", async () => {
    image.replaceWith(tile);
    if (!item.shown) return; // nor can it show the server's
    item.shown = false;
    item.tab.dispatchEvent(new Event("unshown"));
    try {
      image.src = (await render(item.file, TAB)).url;
      tile.replaceWith(image);
    } catch {
      // The tile stays; the panel says why.
    }
  });
  return image;
}

/** The picture of the panel: it can be zoomed and, where the server renders it, windowed. */
function largePicture(item) {
  const lens = new Lens();
  const view = viewer(item.file.name, lens);
  const controls = item.shown
    ? null
    : rendering((query) => render(item.file, { ...query, ...PANEL }), view);
  if (item.shown) view.show(item.url);
  return [view.frame, controls, lens.buttons()];
}

/** A tab of the strip; `paintTab` keeps it up to date. */
export function makeTab(item) {
  return h(
    "button",
    { type: "button", role: "tab", id: `tab-${item.number}`, tabIndex: -1, className: "tab" },
    h("span", { className: "thumb" }, preview(item)),
    h("span", { className: "tab-name", title: item.file.name }, item.file.name),
    h("span", { className: "tab-state" }),
  );
}

export function paintTab(item, selected) {
  const done = item.state === "done" ? item.answer.result : null;
  const odd = done !== null && (done.unfamiliar || doubtful(done) > 0);
  item.tab.dataset.state = odd ? "odd" : item.state;
  item.tab.setAttribute("aria-selected", selected);
  item.tab.setAttribute("aria-controls", "panel");
  item.tab.tabIndex = selected ? 0 : -1;
  item.tab.querySelector(".tab-state").textContent = stateOf(item);
}

/** What the panel shows of the image itself, whatever has come of it. `remove` discards it. */
export function subjectOf(item, remove) {
  const [frame, controls, zoom] = largePicture(item);
  return h(
    "div",
    { className: "subject" },
    h("div", { className: "picture" }, frame),
    h(
      "div",
      { className: "subject-line" },
      h("h2", {}, item.file.name),
      h("div", { className: "row" }, zoom, plainButton("Remove", remove, { className: "quiet" })),
    ),
    controls,
  );
}

/** What the panel shows beside the image: the answer, the problem, or that it is to come. */
export function answerOf(item, retry) {
  if (item.problem) return [problemNotice(item.problem, retry)];
  if (!item.answer) return [h("p", { className: "pending" }, stateOf(item))];
  return linked(item.answer);
}

/** Concepts and neighbours that light each other up on hover, on focus and when pressed. */
function linked({ result, names }) {
  const held = new Map(result.concepts.map(({ cui }) => [cui, 0]));
  for (const { cuis } of result.neighbors) {
    for (const cui of cuis) if (held.has(cui)) held.set(cui, held.get(cui) + 1);
  }
  const n = result.neighbors.length;
  const shares = new Map([...result.concepts, ...result.considered].map((c) => [c.cui, c]));
  const concepts = result.concepts.map((c) =>
    conceptRow(c, held.get(c.cui), n, shares.get(c.rival)),
  );
  const cases = result.neighbors.map((neighbor) => neighborCard(neighbor, held, names));
  let pressed = null;
  const light = (source) => {
    const cuis = new Set(source?.cuis);
    for (const { row, cui } of concepts) row.classList.toggle("lit", cuis.has(cui));
    for (const other of cases) {
      const lit = source === other || (source?.cui && other.cuis.includes(source.cui));
      other.row.classList.toggle("lit", Boolean(lit));
      for (const [chip, cui] of other.chips) chip.classList.toggle("lit", cui === source?.cui);
    }
  };
  for (const source of [...concepts, ...cases]) {
    const { row, button } = source;
    for (const event of ["pointerenter", "focusin"]) row.addEventListener(event, () => light(source));
    for (const event of ["pointerleave", "focusout"]) row.addEventListener(event, () => light(pressed));
    button.addEventListener("click", () => {
      pressed?.button.setAttribute("aria-pressed", false);
      pressed = pressed === source ? null : source;
      button.setAttribute("aria-pressed", pressed === source);
      light(pressed);
    });
  }
  return [answerPart(result, concepts), neighborsPart(result, cases)];
}

function answerPart(result, concepts) {
  const unfamiliar = result.unfamiliar
    ? h(
        "p",
        { className: "notice warning" },
        "This image resembles nothing in the index; do not trust this answer.",
      )
    : null;
  const notes = result.notes.map(({ detail }) =>
    h("p", { className: "notice warning" }, `About the picture: ${detail}.`),
  );
  const list = concepts.length
    ? h("ul", { className: "concepts" }, ...concepts.map(({ row }) => row))
    : h("p", { className: "pending" }, "No concept: none is likely enough among the nearest cases.");
  const itself = result.same_image
    ? h("p", { className: "notice warning" }, `The index has this very image, as ${result.same_image}.`)
    : null;
  const listed = [...result.concepts, ...result.considered];
  const meaning = listed.some(({ probability }) => probability !== null)
    ? h(
        "p",
        { className: "note" },
        "The bar is the share of the vote; the percentage, how often concepts with such a share " +
          "were right on the index's own images.",
      )
    : null;
  return h(
    "div",
    { className: "answer" },
    h("h3", {}, "Concepts"),
    unfamiliar,
    itself,
    ...notes,
    list,
    meaning,
    consideredPart(result),
    facts(result),
  );
}

/** Concepts that were voted for and not chosen; null if there are none. */
function consideredPart({ considered }) {
  if (considered.length === 0) return null;
  const rows = considered.map((concept) =>
    h(
      "li",
      { className: "runner-up" },
      conceptName(concept),
      bar(concept.score),
      scoreOf(concept),
      probabilityOf(concept),
    ),
  );
  return h(
    "div",
    { className: "considered" },
    h("h3", {}, "Considered, but not chosen"),
    h("ul", { className: "concepts" }, ...rows),
  );
}

function facts({ expected_f1: f1, familiarity }) {
  const fact = (term, value, meaning) =>
    h("div", {}, h("dt", {}, term), h("dd", { className: "value" }, value), h("dd", {}, meaning));
  return h(
    "dl",
    { className: "facts" },
    fact("Expected F1", f1.toFixed(2), "if the nearest cases are a fair guide; 1 is the best."),
    familiarity === null
      ? null
      : fact(
          "Familiarity",
          percent(familiarity),
          "of the index's own images are less like their nearest cases than this one is.",
        ),
  );
}

function bar(share) {
  const fill = h("span");
  fill.style.width = `${Math.min(Math.max(share, 0), 1) * 100}%`;
  return h("span", { className: "bar", "aria-hidden": "true" }, fill);
}

const conceptName = ({ cui, name }) =>
  h("span", { className: "concept-name" }, name || "(no name)", " ", h("code", {}, cui));

const scoreOf = ({ score }) => h("span", { className: "score" }, score.toFixed(2));

const probabilityOf = ({ probability }) =>
  probability === null ? null : h("span", { className: "probability" }, percent(probability));

/** A concept of the answer; its `rival`, if there is one, excludes it. */
function conceptRow(concept, holders, n, rival) {
  const { cui, score } = concept;
  const doubt = rival
    ? h(
        "span",
        { className: "doubt" },
        `In doubt: ${rival.name || rival.cui} excludes it, and has ${percent(rival.score)} of the vote.`,
      )
    : null;
  const button = h(
    "button",
    { type: "button", className: "concept", "aria-pressed": "false" },
    conceptName(concept),
    bar(score),
    scoreOf(concept),
    probabilityOf(concept),
    doubt,
    h("span", { className: "unseen" }, `, held by ${holders} of ${n} cases listed`),
  );
  return { cui, cuis: [cui], button, row: h("li", {}, button) };
}

function neighborsPart({ neighbors }, cases) {
  const share = neighbors.reduce((sum, { weight }) => sum + weight, 0);
  const text = neighbors.length
    ? `The ${neighbors.length === 1 ? "nearest case has" : `${neighbors.length} nearest cases have`} ` +
      `${percent(share)} of the vote. Concepts of the answer are filled in.`
    : "No cases are listed.";
  return h(
    "div",
    { className: "cases" },
    h("h3", {}, "Nearest cases"),
    h("p", { className: "note" }, text),
    h("ol", {}, ...cases.map(({ row }) => row)),
  );
}

/** The frame of a case's picture, filled once the picture is there; null without one. */
function pictureFrame(thumbnail) {
  if (!thumbnail) return null;
  const frame = h("span", { className: "thumb" });
  picture(thumbnail).then(
    (src) => frame.append(h("img", { src, alt: "" })),
    () => frame.classList.add("missing"),
  );
  return frame;
}

/** A button that asks for cases like one of the index: an event that `find.js` waits for. */
function likeButton(id) {
  const button = h(
    "button",
    { type: "button", className: "quiet like", "aria-label": `Similar cases to ${id}` },
    "Similar cases",
  );
  button.addEventListener("click", () =>
    button.dispatchEvent(new CustomEvent("similar", { bubbles: true, detail: id })),
  );
  return button;
}

/** A case that a search found; the concept `meant` comes first and is filled in. */
export function caseCard({ id, cuis, caption, thumbnail }, names, fact, meant) {
  const chips = [...cuis]
    .sort((a, b) => (b === meant) - (a === meant))
    .map((cui) => {
      const className = cui === meant ? "chip chosen" : "chip";
      return h("li", { className, title: cui }, names[cui] || cui);
    });
  const facts = [
    h("span", { className: "case-id" }, id),
    h("span", { className: "case-fact" }, fact),
  ];
  return h(
    "li",
    { className: "neighbor" },
    h("div", { className: "case" }, pictureFrame(thumbnail), ...facts),
    caption ? h("p", { className: "caption" }, caption) : null,
    h("ul", { className: "chips" }, ...chips),
    likeButton(id),
  );
}

function neighborCard(neighbor, answer, names) {
  const { id, similarity, weight, cuis, inferred, caption, thumbnail } = neighbor;
  const button = h(
    "button",
    { type: "button", className: "case", "aria-pressed": "false" },
    pictureFrame(thumbnail),
    h("span", { className: "case-id" }, id),
    h("span", { className: "case-fact" }, `similarity ${similarity.toFixed(3)}`),
    h("span", { className: "case-fact" }, `${(weight * 100).toFixed(1)} % of the vote`, bar(weight)),
  );
  const ordered = [...cuis].sort((a, b) => answer.has(b) - answer.has(a)); // the answer's first
  const chips = ordered.map((cui) => {
    const chosen = answer.has(cui);
    const unseen = chosen ? h("span", { className: "unseen" }, " (in the answer)") : null;
    const text = names[cui] || cui;
    return [h("li", { className: chosen ? "chip chosen" : "chip", title: cui }, text, unseen), cui];
  });
  const filledIn = inferred.map((cui) =>
    h("li", { className: "chip inferred", title: cui }, `${names[cui] || cui} (filled in)`),
  );
  const row = h(
    "li",
    { className: "neighbor" },
    button,
    caption ? h("p", { className: "caption" }, caption) : null,
    h("ul", { className: "chips" }, ...chips.map(([chip]) => chip), ...filledIn),
    likeButton(id),
  );
  return { cuis, button, row, chips };
}
