// The pictures of a review: its image, and the nearest cases beside it.

import { picture, render, renderStored } from "./api.js";
import { h } from "./dom.js";
import { rendering } from "./rendering.js";
import { viewer } from "./viewer.js";

const LARGE = { side: 1600 };

/** Show the picture of a review, as large as the server `hasLarge` ones; returns its controls, or null. */
export function showPicture(review, view, hasLarge) {
  if (review.file) {
    const { item } = review;
    if (item.shown) {
      view.show(item.url);
      return null;
    }
    return rendering((query) => render(review.file, { ...query, ...LARGE }), view);
  }
  if (!hasLarge) {
    showThumbnail(review, view);
    return null;
  }
  const ask = async (query) => {
    try {
      return await renderStored(review.id, { ...query, ...LARGE });
    } catch (problem) {
      if (review.thumbnail) showThumbnail(review, view);
      throw problem;
    }
  };
  return rendering(ask, view);
}

function showThumbnail({ thumbnail }, view) {
  if (!thumbnail) return view.say("The index has no picture");
  picture(thumbnail).then(view.show, () => view.say("No picture"));
}

/** A near case: its row, the list for its concepts, and these. Its picture moves with the lens. */
export function caseOf({ id, similarity, cuis, thumbnail }, lens, hasLarge) {
  const view = viewer(id, lens);
  let large = null;
  showThumbnail({ thumbnail }, { ...view, show: (src) => large ?? view.show(src) });
  if (hasLarge) {
    const ask = renderStored(id, { side: 1024, format: "jpeg" });
    ask.then(({ url }) => view.show((large = url)), () => {}); // or the small one stays
  }
  const chips = h("ul", { className: "chips" });
  const row = h(
    "li",
    { className: "neighbor" },
    view.frame,
    h("p", { className: "case-id" }, id),
    h("p", { className: "case-fact" }, `similarity ${similarity.toFixed(3)}`),
    chips,
  );
  return { row, chips, cuis };
}
