// The page: images come in, wait, are sent a few at a time, and are shown.

import { Problem, annotate, hasKey, info, useKey } from "./api.js";
import { browseAgain, startBrowsing } from "./browse.js";
import { $, plural, say } from "./dom.js";
import { startFinding } from "./find.js";
import { know, reviewItems, startReview } from "./review.js";
import { download } from "./tables.js";
import { answerOf, makeTab, paintTab, subjectOf } from "./view.js";
import { addView, open, startViews } from "./views.js";

const AT_ONCE = 4; // requests in flight

const items = []; // in the order in which they came
let selected = null;
let running = 0;
let locked = false; // until there is a key
let query = ""; // the options in force
let added = 0;
let version = null; // of the index, as the footer names it
let largest = Infinity; // bytes of a request that the server takes

// Images in

function add(files) {
  if (files.length === 0) return;
  if ($("annotate-view").hidden) open("annotate");
  applyOptions();
  for (const file of files) {
    const item = { file, number: ++added, state: "waiting", answer: null, problem: null, wait: 0 };
    item.url = URL.createObjectURL(file);
    item.shown = true; // until the browser fails to
    item.tab = makeTab(item);
    item.tab.addEventListener("click", () => select(item));
    item.tab.addEventListener("unshown", () => item === selected && showSubject());
    items.push(item);
    $("strip").append(item.tab);
    paintTab(item, false);
  }
  say(`${count(files.length)} added.`);
  select(selected ?? items[0]);
  pump();
}

function discard(item) {
  items.splice(items.indexOf(item), 1);
  stop(item);
  item.tab.remove();
  URL.revokeObjectURL(item.url);
}

function remove(item) {
  const at = items.indexOf(item);
  discard(item);
  if (item === selected) select(items[Math.min(at, items.length - 1)] ?? null);
  (selected?.tab ?? $("choose")).focus();
  say(`${item.file.name} removed.`);
  paint();
}

function clear() {
  for (const item of [...items]) discard(item);
  select(null);
  $("choose").focus();
  say("All images removed.");
}

/** The pasted images; the browser calls each picture without a file image.png. */
function pastedFiles({ files }) {
  return [...files].map((file, i) =>
    file.name === "image.png"
      ? new File([file], `pasted-${added + i + 1}.png`, { type: file.type })
      : file,
  );
}

/** The files of a drop, those of its folders among them. */
async function droppedFiles({ items: dropped }) {
  const found = [...dropped]
    .filter(({ kind }) => kind === "file")
    .map((item) => [item.webkitGetAsEntry(), item.getAsFile()]); // now: they go with the event
  const files = found.map(([entry, file]) => (entry?.isDirectory ? filesIn(entry) : file));
  return (await Promise.all(files)).flat();
}

async function filesIn(folder) {
  const reader = folder.createReader();
  const entries = [];
  for (let some; (some = await called(reader, "readEntries")).length > 0; ) entries.push(...some);
  const files = entries
    .filter(({ name }) => !name.startsWith(".")) // what systems leave in folders
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .map((entry) => (entry.isDirectory ? filesIn(entry) : called(entry, "file")));
  return (await Promise.all(files)).flat();
}

/** A method that takes two callbacks, as a promise. */
const called = (object, method) =>
  new Promise((resolve, reject) => object[method](resolve, reject));

// The queue

const count = (n) => plural(n, "image");

function set(item, state) {
  item.state = state;
  paintTab(item, item === selected);
  if (item === selected) showPanel();
  paint();
}

function stop(item) {
  item.controller?.abort();
  item.controller = null;
}

function enqueue(item) {
  stop(item);
  item.problem = null;
  set(item, "waiting");
}

function pump() {
  while (!locked && running < AT_ONCE) {
    const item = items.find(({ state }) => state === "waiting");
    if (!item) break;
    send(item);
  }
}

async function send(item) {
  const controller = (item.controller = new AbortController());
  running++;
  set(item, "sending");
  try {
    if (item.file.size > largest) throw tooLarge(item.file.size);
    const answer = await annotate(item.file, query, controller.signal, (seconds) => {
      item.wait = seconds;
      set(item, "busy");
    });
    if (item.controller === controller) finish(item, answer);
  } catch (problem) {
    if (item.controller === controller) fail(item, problem);
  } finally {
    running--;
    pump();
  }
}

/** Said here, because a server that refuses an upload may close it before its answer is read. */
function tooLarge(bytes) {
  const mebibytes = (n) => `${(n / 2 ** 20).toFixed(1)} MiB`;
  return new Problem({
    title: "The file is too large",
    detail: `It has ${mebibytes(bytes)}; the server takes ${mebibytes(largest)}.`,
    hint: "Export it smaller, or have the server started with a larger --max-upload-mb.",
  });
}

function finish(item, answer) {
  item.answer = answer;
  set(item, "done");
  announceEnd();
  if (answer.index_version !== version) showInfo();
}

function fail(item, problem) {
  if (problem.status === 401) {
    set(item, "waiting");
    askForKey();
    return;
  }
  item.answer = null;
  item.problem = problem;
  set(item, "failed");
  announceEnd();
}

// What is seen

const withState = (state) => items.filter((item) => item.state === state);

function paint() {
  const done = withState("done").length;
  const failed = withState("failed").length;
  const finished = done + failed;
  $("work").hidden = items.length === 0;
  $("summary").textContent =
    `${done} of ${count(items.length)} annotated` + (failed ? `, ${failed} failed` : "");
  $("progress").max = items.length || 1;
  $("progress").value = finished;
  $("progress").hidden = finished === items.length;
  $("retry").hidden = failed === 0;
  $("review").disabled = $("copy").disabled = $("download").disabled = done === 0;
}

function announceEnd() {
  if (items.every(({ state }) => state === "done" || state === "failed")) {
    say(`Finished: ${$("summary").textContent}.`);
  }
}

function select(item) {
  const before = selected;
  selected = item;
  if (before && items.includes(before)) paintTab(before, false);
  if (item) {
    paintTab(item, true);
    item.tab.scrollIntoView({ block: "nearest", inline: "nearest" });
    if (item !== before) showSubject();
    showPanel();
  }
  paint();
}

function showPanel() {
  const panel = $("panel");
  const hadFocus = panel.contains(document.activeElement);
  panel.setAttribute("aria-labelledby", selected.tab.id);
  panel.setAttribute("aria-busy", ["waiting", "sending", "busy"].includes(selected.state));
  while (panel.children.length > 1) panel.lastElementChild.remove();
  panel.append(...answerOf(selected, () => retry(selected)));
  if (hadFocus && !panel.contains(document.activeElement)) panel.focus(); // what had it is gone
}

/** The image, which stays while its answer comes and changes. */
function showSubject() {
  const item = selected;
  const subject = subjectOf(item, () => remove(item));
  if ($("panel").children.length) $("panel").children[0].replaceWith(subject);
  else $("panel").append(subject);
}

function retry(...failed) {
  failed.forEach(enqueue);
  $("panel").focus(); // the button that was pressed is gone
  pump();
}

async function showInfo() {
  try {
    const known = await info();
    const { index, model, voting, limits } = known;
    know(known);
    browseAgain();
    version = index.version;
    largest = limits.upload_bytes;
    showDefaults(voting);
    $("info").textContent =
      `Index ${index.version}: ${index.images.toLocaleString("en")} images, ` +
      `${index.concepts.toLocaleString("en")} concepts. Model ${model.name}, ` +
      `fingerprint ${model.fingerprint.slice(0, 12)}.`;
  } catch (problem) {
    if (problem.status === 401) askForKey();
    else $("info").textContent = `Index and model: ${problem.title}.`;
  }
}

/** What an option that is left empty stands for. */
function showDefaults({ k, decider, min_score: minScore, macro_thresholds: thresholds }) {
  const { elements } = $("options");
  elements.k.placeholder = k;
  elements.min_score.placeholder = minScore;
  elements.decider.querySelector("[value=macro-f1]").disabled = thresholds === null;
  elements.decider.options[0].textContent = `${decider} (the index's own)`;
}

// The key

function askForKey() {
  locked = true;
  const first = $("key-form").hidden;
  $("docs").hidden = true; // a link cannot carry the key
  $("key-form").hidden = false;
  $("key-error").textContent = hasKey() ? "The key was not accepted." : "";
  if (first) $("key").focus();
}

function submitKey() {
  try {
    useKey($("key").value.trim());
  } catch (problem) {
    $("key-error").textContent = problem.title;
    return;
  }
  $("key").value = "";
  $("key-error").textContent = "";
  $("key-form").hidden = true;
  if (!$("annotate-view").hidden) $("choose").focus();
  locked = false;
  showInfo();
  pump();
}

// Options

/** Put the form's options in force; every image is annotated again if they are others than before. */
function applyOptions() {
  const form = $("options");
  if (!form.checkValidity()) {
    form.closest("details").open = true; // a control that is out of sight cannot be pointed at
    form.reportValidity();
    return;
  }
  const filled = [...new FormData(form)].filter(([, value]) => value !== "");
  const wanted = new URLSearchParams(filled).toString();
  if (wanted === query) return;
  query = wanted;
  for (const item of items) enqueue(item);
  if (items.length) say(`Annotating ${count(items.length)} again.`);
  pump();
}

// The run

/** run.csv as the task wants it in 2026: a header, unique ids without separators, no outer space. */
function runCsv() {
  const used = new Set();
  const rows = withState("done").map(({ answer: { result } }) => {
    const stem = result.id.trim().replace(/[|,"\p{C}]|(?! )\p{Z}/gu, "_") || "image";
    let id = stem;
    for (let n = 2; used.has(id); n++) id = `${stem}-${n}`;
    used.add(id);
    return `${id},${result.concepts.map(({ cui }) => cui).join(";")}\n`;
  });
  return `ID,CUIs\n${rows.join("")}`;
}

async function copyRun() {
  try {
    await navigator.clipboard.writeText(runCsv());
    say("run.csv copied.");
    flash($("copy"), "Copied");
  } catch {
    // Browsers allow it on https and localhost only, and a person can forbid it.
    flash($("copy"), "Copying is not allowed here");
    say("Copying is not allowed here: download run.csv instead.");
  }
}

function flash(button, text) {
  const usual = button.dataset.text ?? button.textContent;
  button.dataset.text = usual;
  button.textContent = text;
  setTimeout(() => (button.textContent = usual), 2000);
}

function downloadRun() {
  download("run.csv", runCsv());
  say("run.csv downloaded.");
}

// Events

$("choose").addEventListener("click", () => $("files").click());
$("files").addEventListener("change", ({ target }) => {
  add([...target.files]);
  target.value = ""; // so that the same file can be chosen again
});
window.addEventListener("paste", ({ target, clipboardData }) => {
  if (!target.matches("input, textarea")) add(pastedFiles(clipboardData));
});
window.addEventListener("dragover", (event) => {
  event.preventDefault();
  $("drop").classList.toggle("over", event.dataTransfer.types.includes("Files"));
});
window.addEventListener("dragleave", () => $("drop").classList.remove("over"));
window.addEventListener("drop", async (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  add(await droppedFiles(event.dataTransfer));
});
$("strip").addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey) return; // the browser's own, such as "back"
  const at = items.indexOf(selected);
  const to = {
    ArrowLeft: at - 1,
    ArrowRight: at + 1,
    Home: 0,
    End: items.length - 1,
  }[event.key];
  if (event.key === "Delete") remove(selected);
  else if (items[to]) {
    select(items[to]);
    selected.tab.focus();
  } else return;
  event.preventDefault();
});
for (const [id, handle] of [["options", applyOptions], ["key-form", submitKey]]) {
  $(id).addEventListener("submit", (event) => {
    event.preventDefault();
    handle();
  });
}
$("options").addEventListener("reset", () => setTimeout(applyOptions)); // once it is reset
$("review").addEventListener("click", () => {
  const done = withState("done");
  const first = done.indexOf(selected);
  reviewItems([...done.slice(Math.max(first, 0)), ...done.slice(0, Math.max(first, 0))]);
});
$("copy").addEventListener("click", copyRun);
$("download").addEventListener("click", downloadRun);
$("clear").addEventListener("click", clear);
$("retry").addEventListener("click", () => retry(...withState("failed")));

addView("annotate");
startFinding({ askForKey });
startReview({ askForKey });
startBrowsing({ askForKey });
startViews();
showInfo();
