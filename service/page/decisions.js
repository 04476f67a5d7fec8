// What a reviewer decides on the concepts of one image, with undo.

/** Decisions on concepts: each is accepted or not. */
export class Decisions {
  #accepted;
  #past = []; // sets of accepted concepts, before each decision
  #added = []; // concepts that the reviewer brought in

  /**
   * `before`: ids of the concepts that the image has. `accepted`: those to begin with.
   * `offered`: concepts to decide on ({ cui, name, … }), those that it has first.
   */
  constructor(before, accepted, offered) {
    this.before = new Set(before);
    this.#accepted = new Set(accepted);
    this.offered = offered;
  }

  /** The concepts to decide on, in a fixed order. */
  get concepts() {
    return [...this.offered, ...this.#added];
  }

  has = (cui) => this.#accepted.has(cui);

  /** What became of a concept: kept, removed, new, or none of these. */
  stateOf(cui) {
    if (this.has(cui)) return this.before.has(cui) ? "kept" : "new";
    return this.before.has(cui) ? "removed" : "open";
  }

  accept(cui) {
    this.#decide((accepted) => accepted.add(cui));
  }

  reject(cui) {
    this.#decide((accepted) => accepted.delete(cui));
  }

  toggle(cui) {
    if (this.has(cui)) this.reject(cui);
    else this.accept(cui);
  }

  /** Accept a concept that may not be among those on offer. */
  add(concept) {
    if (!this.concepts.some(({ cui }) => cui === concept.cui)) this.#added.push(concept);
    this.accept(concept.cui);
  }

  /** Accept these and no others, as one decision. */
  acceptOnly(cuis) {
    this.#decide((accepted) => {
      accepted.clear();
      for (const cui of cuis) accepted.add(cui);
    });
  }

  /** Take the last decision back; false if there is none. */
  undo() {
    if (this.#past.length === 0) return false;
    this.#accepted = this.#past.pop();
    this.#added = this.#added.filter(({ cui }) => this.has(cui));
    return true;
  }

  /** The concepts that the image is to have, ascending. */
  get after() {
    return [...this.#accepted].sort();
  }

  get gained() {
    return this.after.filter((cui) => !this.before.has(cui));
  }

  get lost() {
    return [...this.before].filter((cui) => !this.has(cui)).sort();
  }

  get changed() {
    return this.gained.length + this.lost.length > 0;
  }

  #decide(change) {
    const next = new Set(this.#accepted);
    change(next);
    if (next.size === this.#accepted.size && [...next].every((cui) => this.has(cui))) return;
    this.#past.push(this.#accepted);
    this.#accepted = next;
  }
}
