// Requests to the server: the key, errors as problems (RFC 9457), patience when it is busy.

const ATTEMPTS = 5; // of one image while the server answers 429
const LONGEST_WAIT_S = 30;

let key = ""; // in memory only, never in storage

/**
 * An error that a person can act on: title, detail, hint, the HTTP status (0 without one), code;
 * of a conflict, the state of now as `present`.
 */
export class Problem extends Error {
  constructor({ title, detail = "", hint = "", status = 0, code = "", present }, retryAfter = 1) {
    super(detail || title);
    Object.assign(this, { title, detail, hint, status, code, present, retryAfter });
  }
}

/** Use `value` from the next request on. Throws a Problem for what no HTTP header can carry. */
export function useKey(value) {
  if (!/^[\x21-\x7e]+$/.test(value)) {
    throw new Problem({ title: "A key has no spaces and only plain letters, digits and signs." });
  }
  key = value;
}

export const hasKey = () => key !== "";

async function problemOf(response) {
  let fields = {};
  try {
    fields = await response.json();
  } catch {
    // A proxy's error page, say: the status has to speak for it.
  }
  return new Problem(
    {
      title: fields.title || `The server answered ${response.status} ${response.statusText}`.trim(),
      detail: fields.detail,
      hint: fields.hint,
      status: response.status,
      code: fields.code,
      present: fields.present,
    },
    Math.min(Math.max(Number(response.headers.get("Retry-After")) || 1, 1), LONGEST_WAIT_S),
  );
}

/** Fetch `path`, relative to the page, and read its body with `read`. Throws a Problem. */
async function fetched(path, read, options = {}) {
  const sent = key;
  const headers = { ...options.headers, ...(sent && { Authorization: `Bearer ${sent}` }) };
  try {
    const response = await fetch(path, { ...options, headers });
    // A late refusal of a former key says nothing of the present one.
    if (response.status === 401 && sent !== key) return await fetched(path, read, options);
    if (!response.ok) throw await problemOf(response);
    return await read(response);
  } catch (error) {
    if (error instanceof Problem || error.name === "AbortError") throw error;
    if (error instanceof SyntaxError) {
      throw new Problem({
        title: "The answer cannot be read",
        detail: "What came back is not JSON, so it may not come from annotator.",
        hint: "Check the address, and any proxy on the way.",
      });
    }
    throw new Problem({
      title: "The server cannot be reached",
      detail: "The connection failed before an answer came.",
      hint: "Check that the server runs and that the file is still in its place, then try again.",
    });
  }
}

const asked = (path, query, signal) =>
  fetched(`${path}?${new URLSearchParams(query)}`, (response) => response.json(), { signal });

export const info = () => fetched("v1/info", (response) => response.json());
export const concepts = (q, limit) => asked("v1/concepts", { q, limit });
export const search = (q, k, signal) => asked("v1/search", { q, k }, signal);
export const similar = (id, k, signal) => asked("v1/similar", { id, k }, signal);

/** Images of the index: `query` as in the address, and which part of them. */
export const listImages = (query, part) =>
  patiently(() => asked("v1/images", [...new URLSearchParams(query), ...Object.entries(part)]));

/** Where the images lie that fit `filters`. */
export const mapOf = (filters) => patiently(() => asked("v1/map", [...new URLSearchParams(filters)]));

export const queue = (limit) => asked("v1/queue", { limit });

/** What the other images say of one of the index: an answer with its only result as `result`. */
export async function votes(id, without, neighbors) {
  const answer = await patiently(() => asked("v1/annotate", { id, without, neighbors }));
  return { ...answer, result: answer.results[0] };
}

const withTag = async (response) => ({
  ...(await response.json()),
  etag: response.headers.get("ETag"),
});
const ofImage = (id) => `v1/images/${encodeURIComponent(id)}`;

/** An image of the index and its labels, with the `etag` that a correction has to name. */
export const image = (id) => patiently(() => fetched(ofImage(id), withTag));

/** Correct the labels of an image; `body` as for PATCH. Returns it, with its `etag`. */
export const correct = (id, etag, body) =>
  fetched(ofImage(id), withTag, {
    method: "PATCH",
    headers: { "If-Match": etag, "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });

/** Add an image with its labels to the index. */
export function addImage(file, id, concepts, reason) {
  const query = new URLSearchParams({ id, reason });
  for (const concept of concepts) query.append("concepts", concept);
  return patiently(() =>
    fetched(`v1/images?${query}`, withTag, { method: "POST", body: formOf(file) }),
  );
}

function formOf(file) {
  const body = new FormData();
  body.append("image", file, file.name);
  return body;
}

/** A picture that the server rendered: its object URL, and what it shows. */
async function rendered(response) {
  const numbers = (name) => response.headers.get(`X-Annotator-${name}`).split(",").map(Number);
  const [[frame], [frames], [low, high], [center, width]] = [
    "Frame",
    "Frames",
    "Levels",
    "Window",
  ].map(numbers);
  const url = URL.createObjectURL(await response.blob());
  return { url, frame, frames, low, high, center, width };
}

const given = (query) =>
  new URLSearchParams(Object.entries(query).filter(([, value]) => value !== undefined));

/** A picture of a file. `query`: frame, center, width, side, format. */
export const render = (file, query) =>
  patiently(() =>
    fetched(`v1/pictures?${given(query)}`, rendered, { method: "POST", body: formOf(file) }),
  );

/** A picture of an image of the index, from its file. */
export const renderStored = (id, query) =>
  patiently(() => fetched(`v1/pictures/${encodeURIComponent(id)}?${given(query)}`, rendered));

/**
 * Annotate one image. While the server is busy, `onBusy(seconds)` is told of each wait.
 * Returns the server's answer with its only result as `result`. Throws a Problem, or an AbortError.
 */
export async function annotate(file, query, signal, onBusy) {
  const options = () => ({ method: "POST", body: formOf(file), signal });
  const answer = await patiently(
    () => fetched(`v1/annotate?${query}`, (response) => response.json(), options()),
    signal,
    onBusy,
  );
  const [result] = answer.results;
  if (result.error) throw new Problem(result.error);
  return { ...answer, result };
}

/** Do something again while the server is busy. */
async function patiently(work, signal = null, onBusy = () => {}) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work();
    } catch (error) {
      if (error.status !== 429 || attempt === ATTEMPTS) throw error;
      onBusy(error.retryAfter);
      await pause(error.retryAfter, signal);
    }
  }
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}

const pictures = new Map(); // path -> promise of an object URL

/** A small picture as an object URL: fetched, because an <img> cannot send the key. */
export const fetchPicture = (path) =>
  fetched(path.replace(/^\//, ""), async (response) => URL.createObjectURL(await response.blob()));

/** The same, kept as long as the page. */
export function picture(path) {
  if (!pictures.has(path)) {
    const url = fetchPicture(path);
    url.catch(() => pictures.delete(path));
    pictures.set(path, url);
  }
  return pictures.get(path);
}
