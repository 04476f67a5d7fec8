// What is written of a review: a row for each concept, and what another person made of them meanwhile.

import { button, h, percent } from "./dom.js";

/** What is said of a concept beside its name. */
function factOf({ score, probability }) {
  if (score === null || score === undefined) return "";
  const votes = `${percent(score)} of the votes`;
  return probability === null ? votes : `${votes}, right in ${percent(probability)}`;
}

const STATES = { kept: "label", removed: "removed", new: "new", open: "suggested" };

/** One concept in the list: its name, whether it is a label, and its votes. */
export function decisionRow(concept, decisions) {
  const state = decisions.stateOf(concept.cui);
  return h(
    "li",
    {
      role: "option",
      tabIndex: -1,
      className: "decision",
      "aria-selected": String(decisions.has(concept.cui)),
      "data-state": state,
    },
    h("span", { className: "sign", "aria-hidden": "true" }),
    h("span", { className: "concept-name" }, concept.name || "(no name)", " ", h("code", {}, concept.cui)),
    h("span", { className: "decision-state" }, STATES[state]),
    h("span", { className: "case-fact" }, factOf(concept)),
  );
}

/**
 * What somebody else made of an image beside what this reader did, in a notice with three ways out.
 * `settle(cuis, save)` is called with the concepts that are accepted now, and whether to save them.
 */
export function conflictNotice({ decisions, names }, present, settle) {
  const joined = new Set(present.concepts);
  for (const cui of decisions.gained) joined.add(cui);
  for (const cui of decisions.lost) joined.delete(cui);
  const chips = (cuis) =>
    cuis.length
      ? h("ul", { className: "chips" }, ...cuis.map((cui) => h("li", { className: "chip", title: cui }, names[cui] || cui)))
      : h("p", { className: "note" }, "no concept");
  const side = (title, cuis) => h("div", {}, h("h4", {}, title), chips(cuis));
  return h(
    "div",
    { className: "notice warning conflict", role: "group", "aria-label": "Conflict" },
    h("h3", {}, "Somebody else has changed this image meanwhile"),
    h("div", { className: "sides" }, side("Theirs, now on the server", present.concepts), side("Yours", decisions.after)),
    h(
      "div",
      { className: "row" },
      button("Join both and save", () => settle([...joined], true)),
      button("Save mine instead", () => settle(decisions.after, true)),
      button("Take theirs", () => settle(present.concepts, false)),
    ),
  );
}
