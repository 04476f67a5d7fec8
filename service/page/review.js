// Review: one image after the other, its labels accepted, rejected and added, by mouse or by keys.

import { addImage, concepts, correct, queue } from "./api.js";
import { combobox } from "./combobox.js";
import { $, button, h, plural, problemNotice, say } from "./dom.js";
import { caseOf, showPicture } from "./pictures.js";
import { load, ofFile, ofIndex, rebase } from "./subject.js";
import { csv, download, idsIn, listed } from "./tables.js";
import { conflictNotice, decisionRow } from "./verdict.js";
import { Lens, viewer } from "./viewer.js";
import { addView, open, rename } from "./views.js";

const CASES = 4; // beside the image
const SUGGESTED = 12; // concepts in the field for new ones

let access = { corrections: false, pictures: false }; // what the server has for this reader
let askForKey = () => {};
let reviews = []; // see subject.js
let at = -1; // of the one that is shown
let kept = []; // reviews in the order in which they were done
let shown = null; // the parts of the one on the screen that change
let lens = new Lens();

export function startReview(actions) {
  askForKey = actions.askForKey;
  addView("review", (id) => opened(id));
  $("review-start").addEventListener("submit", (event) => {
    event.preventDefault();
    ask(event.submitter?.value);
  });
  $("review-list").addEventListener("change", async ({ target }) => {
    $("review-ids").value = await target.files[0].text();
    target.value = "";
  });
  $("review-case").addEventListener("keydown", onKey);
  $("review-corrections").addEventListener("click", downloadCorrections);
  $("review-labels").addEventListener("click", downloadLabels);
  $("review-stop").addEventListener("click", () => {
    leave();
    open("review");
  });
  window.addEventListener("beforeunload", (event) => {
    if (kept.some(({ taken }) => !taken)) event.preventDefault();
  });
}

/** What the server says of itself and of this reader's key. */
export function know({ corrections, index }) {
  access = { corrections, pictures: index.pictures, groups: index.groups };
  $("review-saved").textContent = corrections
    ? "Each decision is saved on the server at once."
    : "This server takes no corrections from you: decisions stay on this page, and you download them as a table.";
  if (!$("review-view").hidden && reviews[at]?.failed) retry();
}

/** Review images of the index, in this order; `found` are ids, or { id, why }. */
export function reviewIds(found) {
  begin(found.map((one) => (typeof one === "string" ? ofIndex(one) : ofIndex(one.id, one.why))));
}

/** Review images that were annotated. */
export function reviewItems(items) {
  begin(items.map(ofFile));
}

function begin(some) {
  if (some.length === 0) {
    $("review-error").textContent = "There is nothing to review.";
    return;
  }
  $("review-error").textContent = "";
  reviews = some;
  at = 0;
  if ($("review-view").hidden) open("review", reviews[0].id);
  else {
    history.pushState(null, "", `#review/${encodeURIComponent(reviews[0].id)}`);
    go(0);
  }
}

/** The view is opened: at an image, or at the choice of what to review. */
function opened(id) {
  if (!id) {
    $("review-start").hidden = false;
    $("review-work").hidden = true;
    return;
  }
  const known = reviews.findIndex((one) => one.id === id);
  if (known < 0) {
    reviews = [ofIndex(id)];
    go(0);
  } else go(known);
}

/** Forget the queue, but not what was decided. */
function leave() {
  reviews = [];
  at = -1;
}

async function ask(wanted) {
  if (wanted === "ids") return reviewIds(idsIn($("review-ids").value));
  $("review-error").textContent = "";
  $("review-wait").hidden = false;
  try {
    const { items } = await queue($("review-count").value);
    reviewIds(items.map(({ id, reason }) => ({ id, why: reason })));
  } catch (problem) {
    if (problem.status === 401) askForKey();
    else $("review-error").textContent = `${problem.detail || problem.title} ${problem.hint}`.trim();
  } finally {
    $("review-wait").hidden = true;
  }
}

// One review

async function go(to) {
  at = to;
  const review = reviews[at];
  $("review-start").hidden = true;
  $("review-work").hidden = false;
  if (!review) return finish();
  rename("review", review.id);
  paintProgress();
  lens = new Lens();
  shown = null;
  $("review-case").setAttribute("aria-busy", true);
  review.failed = null;
  try {
    await load(review, access.groups);
  } catch (problem) {
    review.ready = null;
    review.failed = problem;
  }
  if (reviews[at] !== review) return; // gone on meanwhile
  $("review-case").removeAttribute("aria-busy");
  if (review.failed) return fail(review);
  show(review);
  const next = reviews[at + 1];
  if (next) load(next, access.groups).catch(() => (next.ready = null));
}

function fail({ failed, id }) {
  if (failed.status === 401) askForKey();
  $("review-case").replaceChildren(h("h2", {}, id), problemNotice(failed, retry));
  $("review-case").focus();
  say(failed.detail || failed.title);
}

const retry = () => go(at);

function finish() {
  shown = null;
  paintProgress();
  const finished = reviews.filter((review) => review.done);
  const changed = finished.filter(({ decisions }) => decisions.changed).length;
  const n = reviews.length;
  const all = finished.length < n ? `${finished.length} of ` : n > 1 ? "All " : "";
  const title = h("h2", { tabIndex: -1 }, `${all}${plural(n, "image")} reviewed`);
  $("review-case").replaceChildren(
    title,
    h("p", {}, `${plural(changed, "image")} changed, ${finished.length - changed} confirmed as they were.`),
    h(
      "div",
      { className: "row" },
      button("Review more", () => open("review"), { className: "primary" }),
      button("Undo the last one", undo),
    ),
  );
  title.focus();
  say(title.textContent);
}

function paintProgress() {
  const done = reviews.filter((review) => review.done).length;
  $("review-progress").max = reviews.length || 1;
  $("review-progress").value = done;
  $("review-summary").textContent = reviews[at]
    ? `${at + 1} of ${reviews.length} · ${done} reviewed`
    : `${done} of ${reviews.length} reviewed`;
  const untaken = kept.filter(({ taken, decisions }) => !taken && decisions.changed);
  $("review-corrections").hidden = !kept.some(({ file }) => !file) || access.corrections;
  $("review-corrections").disabled = !untaken.some(({ file }) => !file);
  $("review-labels").hidden = !kept.some(({ file }) => file);
}

// What is seen of it

function show(review) {
  const subject = viewer(`${review.id}, under review`, lens);
  const controls = showPicture(review, subject, access.pictures);
  const list = h("ul", {
    className: "decisions",
    role: "listbox",
    "aria-multiselectable": "true",
    "aria-label": `Concepts of ${review.id}: those that are selected are accepted`,
  });
  const changes = h("p", { className: "changes" });
  const field = combobox("Add a concept", suggestions, (concept) => added(review, concept), focusList);
  shown = { review, list, changes, field, marked: 0, cases: review.cases.slice(0, CASES).map((near) => caseOf(near, lens, access.pictures)) };
  list.addEventListener("focusin", ({ target }) => mark([...list.children].indexOf(target)));
  $("review-case").replaceChildren(
    h(
      "div",
      { className: "subject" },
      h("div", { className: "subject-line" }, h("h2", {}, review.id), lens.buttons()),
      subject.frame,
      controls,
      review.caption ? h("p", { className: "caption" }, review.caption) : null,
      review.group ? h("p", { className: "note" }, `Group ${review.group}`) : null,
    ),
    h(
      "div",
      { className: "verdict" },
      h("h3", {}, "Concepts"),
      review.why ? h("p", { className: "note" }, `Asked because: ${review.why}`) : null,
      list,
      field.element,
      changes,
      buttonsOf(review),
    ),
    h(
      "div",
      { className: "beside" },
      h("h3", {}, "Nearest cases"),
      shown.cases.length
        ? h("ol", {}, ...shown.cases.map(({ row }) => row))
        : h("p", { className: "pending" }, "None: this image resembles nothing in the index."),
    ),
  );
  paintDecisions();
  focusList();
  $("review-work").scrollIntoView({ block: "start" });
  say(`${review.id}, ${at + 1} of ${reviews.length}. ${plural(review.decisions.after.length, "concept")}.`);
}

function buttonsOf(review) {
  const keep = access.corrections && !review.file ? "Save and next" : "Keep and next";
  const adds = review.file && access.corrections;
  return h(
    "div",
    { className: "row" },
    button(keep, done, { className: "primary", "aria-keyshortcuts": "Enter" }),
    adds ? button("Add to the index", () => addToIndex(review)) : null,
    button("Skip", () => go(at + 1), { "aria-keyshortcuts": "S", disabled: at + 1 >= reviews.length }),
    button("Undo", undo, { "aria-keyshortcuts": "U" }),
  );
}

function paintDecisions() {
  const { review, list, changes, cases } = shown;
  const { decisions } = review;
  const rows = decisions.concepts.map((concept, i) => {
    const row = decisionRow(concept, decisions);
    row.addEventListener("click", () => {
      shown.marked = i;
      decide((all) => all.toggle(concept.cui));
    });
    return row;
  });
  const hadFocus = list.contains(document.activeElement);
  list.replaceChildren(...rows);
  list.hidden = rows.length === 0;
  mark(Math.min(shown.marked, rows.length - 1));
  if (hadFocus) focusList();
  for (const { chips, cuis } of cases) {
    chips.replaceChildren(
      ...cuis.map((cui) =>
        h("li", { className: decisions.has(cui) ? "chip chosen" : "chip", title: cui }, review.names[cui] || cui),
      ),
    );
  }
  const { gained, lost } = decisions;
  changes.textContent = review.file
    ? plural(decisions.after.length, "concept")
    : decisions.changed
      ? [gained.length ? `${gained.length} added` : "", lost.length ? `${lost.length} removed` : ""]
          .filter(Boolean)
          .join(", ")
      : "No changes: the labels are confirmed.";
}

/** Make a concept the one that keys are for; its cases are outlined. */
function mark(i) {
  if (!shown || i < 0) return;
  shown.marked = i;
  const { review, list, cases } = shown;
  [...list.children].forEach((row, n) => (row.tabIndex = n === i ? 0 : -1));
  const cui = review.decisions.concepts[i]?.cui;
  for (const { row, cuis } of cases) row.classList.toggle("lit", cuis.includes(cui));
}

function focusList() {
  (shown?.list.children[shown.marked] ?? $("review-case")).focus();
}

// Decisions

function decide(change) {
  change(shown.review.decisions);
  paintDecisions();
  focusList();
}

async function suggestions(text) {
  const { concepts: found } = await concepts(text, SUGGESTED);
  return found;
}

function added(review, concept) {
  review.names[concept.cui] = concept.name;
  review.decisions.add({ score: null, probability: null, ...concept });
  shown.marked = review.decisions.concepts.findIndex(({ cui }) => cui === concept.cui);
  paintDecisions();
  focusList();
  say(`${concept.name || concept.cui} added.`);
}

/** The review is done: save it, or keep it for the table, and go on. */
async function done() {
  const { review } = shown;
  if (review.busy) return;
  if (!review.file && access.corrections && !(await saved(review))) return;
  note(review);
}

function note(review) {
  review.done = true;
  review.taken ||= !review.decisions.changed; // nothing to take away
  kept = [...kept.filter((one) => one !== review), review];
  const words = review.decisions.changed ? "changed" : "confirmed";
  say(`${review.id} ${words}.`);
  go(at + 1);
}

const reason = () => $("review-reason").value.trim();

/** Send the labels of an image; whether the server has them now. */
async function saved(review) {
  review.busy = true;
  $("review-case").setAttribute("aria-busy", true);
  try {
    const body = { concepts: review.decisions.after, reason: reason(), reviewed: true };
    const stored = await correct(review.id, review.etag, body);
    review.etag = stored.etag;
    review.taken = true;
    return true;
  } catch (problem) {
    if (problem.status === 401) askForKey();
    if (problem.present) conflict(review, problem.present);
    else warn(problemNotice(problem, done), problem.detail || problem.title);
    return false;
  } finally {
    review.busy = false;
    $("review-case").removeAttribute("aria-busy");
  }
}

async function addToIndex(review) {
  try {
    await addImage(review.file, review.id, review.decisions.after, reason());
    review.taken = true;
    note(review);
  } catch (problem) {
    warn(problemNotice(problem, () => addToIndex(review)), problem.detail || problem.title);
  }
}

function warn(notice, text) {
  $("review-case").querySelector(".notice")?.remove();
  $("review-case").querySelector(".verdict").prepend(notice);
  notice.querySelector("button")?.focus();
  say(text);
}

/** Somebody else was first. */
function conflict(review, present) {
  Object.assign(review.names, present.names);
  const settle = async (cuis, save) => {
    review.etag = present.etag;
    rebase(review, present, cuis);
    $("review-case").querySelector(".notice")?.remove();
    paintDecisions();
    focusList();
    if (save) await done();
  };
  warn(
    conflictNotice(review, present, settle),
    "Somebody else has changed this image meanwhile. Theirs and yours are shown.",
  );
}

/** Take back the last decision; where there is none, the last review that was kept. */
async function undo() {
  if (shown?.review.decisions.undo()) {
    paintDecisions();
    focusList();
    say("Undone.");
    return;
  }
  const last = kept.at(-1);
  if (!last || !reviews.includes(last)) return say("There is nothing to undo.");
  if (!last.file && access.corrections && last.decisions.changed) {
    try {
      const body = { concepts: last.before, reason: "undone" };
      last.etag = (await correct(last.id, last.etag, body)).etag;
    } catch (problem) {
      warn(problemNotice(problem, undo), problem.detail || problem.title);
      return;
    }
  }
  kept.pop();
  last.done = false;
  await go(reviews.indexOf(last));
  say(`${last.id} is as it was before. Its decisions are open again.`);
}

// Keys

function onKey(event) {
  const { key, target, altKey, ctrlKey, metaKey } = event;
  if (!shown || altKey || target.matches("input, textarea, select")) return;
  if (ctrlKey || metaKey) {
    if (key.toLowerCase() !== "z") return;
    event.preventDefault();
    undo();
    return;
  }
  const { review, marked } = shown;
  const { decisions } = review;
  const cui = decisions.concepts[marked]?.cui;
  const n = decisions.concepts.length;
  const onButton = target.matches("button, summary");
  const number = /^[1-9]$/.test(key) ? Number(key) : 0;
  const keys = {
    ArrowDown: () => move(Math.min(marked + 1, n - 1)),
    ArrowUp: () => move(Math.max(marked - 1, 0)),
    Home: () => move(0),
    End: () => move(n - 1),
    ArrowRight: () => at + 1 < reviews.length && go(at + 1),
    ArrowLeft: () => at > 0 && go(at - 1),
    a: () => cui && decide((all) => all.accept(cui)),
    r: () => cui && decide((all) => all.reject(cui)),
    n: () => shown.field.input.focus(),
    s: () => at + 1 < reviews.length && go(at + 1),
    u: undo,
    "?": () => ($("review-keys").open = !$("review-keys").open),
    ...(onButton ? {} : { Enter: done, " ": () => cui && decide((all) => all.toggle(cui)) }),
  };
  const press =
    number && number <= n
      ? () => {
          shown.marked = number - 1;
          decide((all) => all.toggle(decisions.concepts[number - 1].cui));
        }
      : keys[key.length === 1 ? key.toLowerCase() : key];
  if (lens.press(event)) event.preventDefault();
  else if (press) {
    event.preventDefault();
    press();
  }
}

function move(i) {
  mark(i);
  focusList();
}

// Tables

function downloadCorrections() {
  const changed = kept.filter(({ file, decisions }) => !file && decisions.changed);
  const rows = changed.map(({ id, decisions }) => [
    id,
    listed(decisions.gained),
    listed(decisions.lost),
    reason(),
  ]);
  download("corrections.csv", csv([["ID", "add", "remove", "reason"], ...rows]));
  for (const review of changed) review.taken = true;
  paintProgress();
  say("corrections.csv downloaded.");
}

function downloadLabels() {
  const done = kept.filter(({ file }) => file);
  const rows = done.map(({ id, decisions }) => [id, listed(decisions.after)]);
  download("labels.csv", csv([["ID", "CUIs"], ...rows]));
  for (const review of done) review.taken = true;
  paintProgress();
  say("labels.csv downloaded.");
}
