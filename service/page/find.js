// Finding cases of the index: by a concept or words, or like a case that is shown.

import { concepts, search, similar } from "./api.js";
import { $, button, h, plural, say } from "./dom.js";
import { reviewIds } from "./review.js";
import { caseCard } from "./view.js";

const LISTED = 8; // cases in a list
const PAUSE_MS = 150; // of typing, before names are suggested

const KINDS = {
  cases: ["Exemplars", "They have it, and so have their neighbours."],
  missing: ["Likely missing", "They lack it, though most of their neighbours' votes are for it."],
  wrong: ["Likely wrong", "They have it, though hardly any of their neighbours' votes is for it."],
};
let controller = null; // of the search under way
let typing = null;

/** Listen to the form and to "Similar cases". `actions` has `askForKey()`. */
export function startFinding(actions) {
  $("find").addEventListener("submit", (event) => {
    event.preventDefault();
    findBy($("q").value, actions);
  });
  $("q").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(suggest, PAUSE_MS);
  });
  document.addEventListener("similar", ({ detail }) => findLike(detail, actions));
}

function findBy(text, actions) {
  const fetchIt = (signal) => search(text.trim(), LISTED, signal);
  run(fetchIt, (answer) => (answer.kind === "concept" ? ofConcept(answer) : ofText(text, answer)), {
    ...actions,
    chooseFrom: text.trim(),
  });
}

function findLike(id, actions) {
  run((signal) => similar(id, LISTED, signal), (answer) => likeCase(id, answer), actions);
}

/** Fetch, show what came or what went wrong, and bring it into view. */
async function run(fetchIt, shown, { askForKey, chooseFrom }) {
  controller?.abort();
  const mine = (controller = new AbortController());
  $("found").hidden = false;
  $("found").setAttribute("aria-busy", true);
  say("Searching…");
  try {
    const parts = shown(await fetchIt(mine.signal));
    show(parts);
    const n = $("found").querySelectorAll(".neighbor").length;
    say(`${parts[0].textContent}: ${plural(n, "case")} listed.`);
  } catch (problem) {
    if (controller !== mine) return; // another search has begun
    if (problem.status === 401) {
      close();
      askForKey();
      return;
    }
    show(await problemParts(problem, chooseFrom, { askForKey }));
    say(problem.detail || problem.title);
  }
  $("found").querySelector("h2").focus({ preventScroll: true });
  $("find-card").scrollIntoView({ block: "start" });
}

function show(parts) {
  const done = h("button", { type: "button", className: "quiet" }, "Close");
  done.addEventListener("click", () => {
    close();
    $("q").focus();
  });
  const [title, ...others] = parts;
  title.tabIndex = -1; // takes the focus, so that reading goes on there
  $("found").replaceChildren(h("div", { className: "found-line" }, title, done), ...others);
  $("found").removeAttribute("aria-busy");
}

function close() {
  $("found").hidden = true;
  $("found").replaceChildren();
  $("found").removeAttribute("aria-busy");
}

function ofConcept({ concept, names, ...lists }) {
  const { cui, name, images } = concept;
  const held = ` · ${images.toLocaleString("en")} image${images === 1 ? "" : "s"}`;
  const title = h("h2", {}, name || "(no name)", " ", h("code", {}, cui), held);
  const fact = (score) => `${score.toFixed(2)} of the votes`;
  const parts = Object.entries(KINDS).map(([kind, [heading, meaning]]) =>
    part(heading, meaning, lists[kind], names, fact, cui),
  );
  return [title, ...parts];
}

function ofText(text, { cases, names }) {
  return [h("h2", {}, `“${text.trim()}”`), part("Cases that fit", "", cases, names, likeness)];
}

function likeCase(id, { results: [{ cases }], names }) {
  return [h("h2", {}, `Like ${id}`), part("Similar cases", "", cases, names, likeness)];
}

const likeness = (score) => `similarity ${score.toFixed(3)}`;

function part(heading, meaning, cases, names, fact, meant = null) {
  const none = cases ? "None." : "Not judged: its images are too few, or too unlike each other.";
  const list = cases?.length
    ? h("ol", {}, ...cases.map((found) => caseCard(found, names, fact(found.score), meant)))
    : h("p", { className: "pending" }, none);
  const note = meaning ? h("p", { className: "note" }, meaning) : null;
  const review = cases?.length
    ? button("Review these", () => reviewIds(cases.map(({ id }) => id)), {
        className: "quiet",
        "aria-label": `Review these: ${heading}`,
      })
    : null;
  return h("div", { className: "cases" }, h("h3", {}, heading), note, list, review);
}

/** What went wrong; where a name means several concepts, a button for each. */
async function problemParts(problem, text, actions) {
  if (problem.code === "ambiguous_concept" && text) {
    const { concepts: known } = await concepts(text, 2 * LISTED);
    const choices = indexed(known).map(({ cui, name, images }) => {
      return button(`${name || cui} (${images})`, () => findBy(cui, actions));
    });
    return [h("h2", {}, `Which “${text}”?`), h("div", { className: "row" }, ...choices)];
  }
  const notice = h(
    "div",
    { className: "notice error" },
    problem.detail ? h("p", {}, problem.detail) : null,
    problem.hint ? h("p", {}, problem.hint) : null,
  );
  return [h("h2", {}, "Nothing found"), notice];
}

/** Those that an image of the index has. */
const indexed = (known) => known.filter(({ images }) => images > 0);

async function suggest() {
  const text = $("q").value.trim();
  if (!text) return;
  try {
    const { concepts: known } = await concepts(text, LISTED);
    if ($("q").value.trim() !== text) return;
    const options = indexed(known).map(({ cui, name }) => h("option", { value: name || cui }, cui));
    $("known").replaceChildren(...options);
  } catch {
    // Suggestions are a help; the search itself says what is wrong.
  }
}
