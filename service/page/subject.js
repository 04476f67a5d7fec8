// What is under review: an image of the index, or one that was annotated here, with its decisions.

import { image, votes } from "./api.js";
import { Decisions } from "./decisions.js";

const ALL = 1000; // neighbours, so that the share of any concept can be told

/** A review of an image of the index. */
export const ofIndex = (id, why = "") => ({ id, why, file: null, done: false, ready: null });

/** A review of an image that was annotated here (an item of the strip). */
export const ofFile = (item) => ({ id: item.answer.result.id, why: "", file: item.file, item, done: false, ready: null });

/** Fetch labels and votes, once; sets `decisions` and what else is shown. `groups`: the index has them. */
export function load(review, groups) {
  review.ready ??= review.file ? loadFile(review) : loadStored(review, groups);
  return review.ready;
}

async function loadStored(review, groups) {
  const stored = await image(review.id);
  const without = groups && stored.group ? "group" : "itself";
  let answer = null;
  try {
    answer = await votes(review.id, without, ALL);
  } catch (problem) {
    if (problem.code !== "unfamiliar_image") throw problem;
  }
  fill(review, stored, answer);
}

function fill(review, stored, answer) {
  const names = { ...answer?.names, ...stored.names };
  const voted = answer ? [...answer.result.concepts, ...answer.result.considered] : [];
  const share = new Map(voted.map((concept) => [concept.cui, concept]));
  const neighbors = answer?.result.neighbors ?? [];
  const scoreOf = (cui) =>
    neighbors.reduce((sum, { cuis, weight }) => sum + (cuis.includes(cui) ? weight : 0), 0);
  const own = stored.concepts.map((cui) => ({
    ...(share.get(cui) ?? { cui, score: answer ? scoreOf(cui) : null, probability: null }),
    name: names[cui] ?? "",
  }));
  const others = voted.filter(({ cui }) => !stored.concepts.includes(cui));
  Object.assign(review, {
    etag: stored.etag,
    before: stored.concepts,
    caption: stored.caption,
    group: stored.group,
    thumbnail: stored.thumbnail,
    cases: neighbors,
    names,
    decisions: new Decisions(stored.concepts, stored.concepts, [...own, ...others]),
  });
}

async function loadFile(review) {
  const { result, names } = review.item.answer;
  const voted = [...result.concepts, ...result.considered];
  Object.assign(review, {
    before: [],
    cases: result.neighbors,
    names,
    decisions: new Decisions([], result.concepts.map(({ cui }) => cui), voted),
  });
}

/** Decide anew on an image that is in another state now. */
export function rebase(review, { concepts: now }, accepted) {
  const known = new Map(review.decisions.concepts.map((concept) => [concept.cui, concept]));
  for (const cui of now) {
    if (!known.has(cui)) known.set(cui, { cui, name: review.names[cui] ?? "", score: null, probability: null });
  }
  review.before = now;
  review.decisions = new Decisions(now, now, [...known.values()]);
  review.decisions.acceptOnly(accepted);
}
