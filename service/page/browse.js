// Browse: the images of the index in a grid, by concept, group and id, in an order.

import { fetchPicture, listImages, mapOf } from "./api.js";
import { $, button, h, plural, say } from "./dom.js";
import { Grid } from "./grid.js";
import { RegionMap } from "./map.js";
import { reviewIds } from "./review.js";
import { addView, address, open } from "./views.js";

const PAGE = 200; // images that are fetched at once
const SHOWN = 30; // of a facet's values
const KEPT = 800; // pictures
const REVIEWED = 200; // images at once, at most
const PAUSE_MS = 250; // of typing
const FILTERS = ["concept", "group", "q"]; // of a list, which the map takes, too

let query = null; // what is listed, as in the address
let total = 0;
let pages = new Map(); // number -> images, or null while they are fetched
let names = {};
let generation = 0; // of the list, so that late pages of another one are dropped
let position = 0; // of the scroller, while another view is shown
let askForKey = () => {};
let known = true; // whether a key was needed and missing
let grid = null;
let typing = null;
let map = null;
let mapped = null; // the filters of which the map shows the images
const pictures = new Map(); // path -> object URL, the oldest first

export function startBrowsing(actions) {
  askForKey = actions.askForKey;
  grid = new Grid($("browse-grid"), "Images of the index; Space selects, Enter reviews", {
    cell,
    want,
    settle,
    act: (i) => review([imageAt(i)]),
    mark: paintSelection,
  });
  map = new RegionMap($("map"), (corners) => go((wanted) => put(wanted, "region", corners.flat().join(","))));
  addView("browse", opened);
  $("browse-form").addEventListener("submit", (event) => event.preventDefault());
  $("browse-q").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => go((wanted) => put(wanted, "q", $("browse-q").value.trim())), PAUSE_MS);
  });
  $("browse-sort").addEventListener("change", ({ target }) =>
    go((wanted) => {
      put(wanted, "sort", target.value);
      wanted.delete("like");
    }),
  );
  $("browse-map").addEventListener("toggle", showMap);
  $("browse-like").addEventListener("click", () => go((wanted) => wanted.set("like", chosen()[0].id)));
  $("browse-review").addEventListener("click", () => review(chosen()));
  $("browse-none").addEventListener("click", () => grid.select([]));
  $("browse-grid").addEventListener("scroll", () => (position = grid.position), { passive: true });
}

/** There is a key now, or another one. */
export function browseAgain() {
  if (known || $("browse-view").hidden) return;
  known = true;
  list();
}

function opened(rest) {
  if (rest === query) {
    grid.position = position; // as it was left
    return;
  }
  query = rest;
  list();
}

/** Change what is listed: another address, so that Back leads here. */
function go(change) {
  const wanted = new URLSearchParams(query);
  change(wanted);
  open("browse", wanted.toString());
}

const put = (wanted, name, value) => (value ? wanted.set(name, value) : wanted.delete(name));

async function list() {
  const mine = ++generation;
  const wanted = new URLSearchParams(query);
  $("browse-q").value = document.activeElement === $("browse-q") ? $("browse-q").value : (wanted.get("q") ?? "");
  $("browse-sort").value = wanted.has("like") ? "like" : (wanted.get("sort") ?? "");
  if (wanted.has("region")) $("browse-map").open = true;
  showMap();
  $("browse-error").textContent = "";
  $("browse-view").setAttribute("aria-busy", true);
  $("browse-total").textContent = wanted.has("sort") ? "The server judges its images…" : "…";
  try {
    const answer = await listImages(query, { offset: 0, limit: PAGE, facets: true });
    if (mine !== generation) return;
    total = answer.total;
    names = answer.names;
    pages = new Map([[0, answer.images]]);
    position = 0;
    grid.reset(total);
    paintFilters(wanted);
    paintFacets(answer.facets, wanted);
    paintSelection();
    $("browse-total").textContent = plural(total, "image");
    say(`${plural(total, "image")} listed.`);
  } catch (problem) {
    if (mine !== generation) return;
    $("browse-total").textContent = "";
    known = problem.status !== 401;
    if (problem.status === 401) askForKey();
    else $("browse-error").textContent = `${problem.detail || problem.title} ${problem.hint}`.trim();
  } finally {
    if (mine === generation) $("browse-view").removeAttribute("aria-busy");
  }
}

/** Draw the images that fit the filters, if the map is open. */
async function showMap() {
  if (!$("browse-map").open) return;
  const wanted = new URLSearchParams(query);
  const region = (wanted.get("region") ?? "").split(",").map(Number);
  const corners = Array.from({ length: region.length >> 1 }, (_, i) => region.slice(2 * i, 2 * i + 2));
  const filters = new URLSearchParams([...wanted].filter(([name]) => FILTERS.includes(name))).toString();
  if (mapped === filters) {
    map.region = corners;
    return;
  }
  mapped = filters;
  try {
    const points = await mapOf(filters);
    if (mapped !== filters) return;
    map.show(points, corners);
    $("map-axes").textContent = `${plural(points.total, "image")}; to the right ${points.axes[0]}, upwards ${points.axes[1]}.`;
  } catch {
    mapped = null; // the list says what is wrong
  }
}

const imageAt = (i) => pages.get(Math.floor(i / PAGE))?.[i % PAGE];

/** Fetch the pages of the images in sight. */
function want(from, to) {
  for (let page = Math.floor(from / PAGE); page * PAGE < to; page++) {
    if (!pages.has(page)) fetchPage(page);
  }
}

async function fetchPage(page) {
  const mine = generation;
  pages.set(page, null);
  try {
    const answer = await listImages(query, { offset: page * PAGE, limit: PAGE });
    if (mine !== generation) return;
    pages.set(page, answer.images);
    Object.assign(names, answer.names);
    grid.refresh();
  } catch {
    if (mine === generation) pages.delete(page); // the next scroll tries again
  }
}

// Cells

function cell(i) {
  const image = imageAt(i);
  if (!image) return null;
  const words = image.concepts.map((cui) => names[cui] || cui).join(", ");
  const frame = h("span", { className: "thumb" });
  const url = pictures.get(image.thumbnail);
  if (url) frame.append(h("img", { src: url, alt: "" }));
  else if (!image.thumbnail) frame.classList.add("missing");
  const fact =
    image.similarity !== null
      ? `similarity ${image.similarity.toFixed(3)}`
      : image.doubt !== null && query.includes("sort=doubt")
      ? `to gain ${image.doubt.toFixed(2)}`
      : image.familiarity !== null && query.includes("sort=familiarity")
        ? `familiarity ${image.familiarity.toFixed(2)}`
        : "";
  return [
    frame,
    h("span", { className: "case-id" }, image.id),
    h("span", { className: "grid-words" }, words || "no concept"),
    fact ? h("span", { className: "case-fact" }, fact) : "",
  ];
}

/** Fetch the pictures in sight, once scrolling has paused. */
function settle(from, to) {
  for (let i = from; i < to; i++) {
    const path = imageAt(i)?.thumbnail;
    if (path && !pictures.has(path)) showPicture(i, path);
  }
}

async function showPicture(i, path) {
  pictures.set(path, null);
  try {
    const url = await fetchPicture(path);
    pictures.set(path, url);
    while (pictures.size > KEPT) {
      const [oldest, old] = pictures.entries().next().value;
      if (old) URL.revokeObjectURL(old);
      pictures.delete(oldest);
    }
    const frame = imageAt(i)?.thumbnail === path && grid.element(i)?.querySelector(".thumb");
    if (frame && !frame.firstChild) frame.append(h("img", { src: url, alt: "" }));
  } catch {
    pictures.delete(path); // tried again when it comes into sight
  }
}

// Filters and selection

function paintFilters(wanted) {
  const all = [
    ...wanted.getAll("concept").map((cui) => ["concept", cui, names[cui] || cui]),
    ...wanted.getAll("group").map((group) => ["group", group, `Group ${group}`]),
    ...wanted.getAll("region").map((region) => ["region", region, "An area of the map"]),
    ...wanted.getAll("like").map((id) => ["like", id, `Like ${id}`]),
  ];
  $("browse-filters").replaceChildren(
    ...all.map(([name, value, text]) =>
      button(`${text} ✕`, () => go((now) => now.delete(name, value)), { "aria-label": `Without the filter ${text}` }),
    ),
  );
}

function paintFacets({ concepts, groups }, wanted) {
  const has = wanted.getAll("concept");
  const link = (text, n, change) => {
    const now = new URLSearchParams(query);
    change(now);
    return h("li", {}, h("a", { href: address("browse", now.toString()) }, text), ` ${n.toLocaleString("en")}`);
  };
  $("browse-concepts").replaceChildren(
    ...concepts
      .filter(({ cui }) => !has.includes(cui))
      .slice(0, SHOWN)
      .map(({ cui, images }) => link(names[cui] || cui, images, (now) => now.append("concept", cui))),
  );
  const some = wanted.has("group") ? [] : groups.slice(0, SHOWN);
  $("browse-groups").replaceChildren(
    ...some.map(({ group, images }) => link(group, images, (now) => now.set("group", group))),
  );
  $("browse-groups-title").hidden = some.length === 0;
}

function paintSelection() {
  const n = grid.selected.size;
  $("browse-selected").textContent = n ? `${plural(n, "image")} selected` : "";
  $("browse-none").hidden = n === 0;
  $("browse-like").hidden = n !== 1;
  $("browse-review").disabled = total === 0;
  $("browse-review").textContent = n
    ? "Review the selected"
    : `Review ${total > REVIEWED ? `the first ${REVIEWED}` : "all of these"}`;
}

/** The selected images, in the order of the list; without any, the first ones. */
function chosen() {
  const numbers = grid.selected.size
    ? [...grid.selected].sort((a, b) => a - b)
    : Array.from({ length: Math.min(total, REVIEWED) }, (_, i) => i);
  return numbers.map(imageAt);
}

const review = (images) => reviewIds(images.filter(Boolean).map(({ id }) => id));
