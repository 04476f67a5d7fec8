"""Cycles among concepts and their parents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def cycles(parents: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Groups of concepts that are ancestors of each other, ascending; empty for a hierarchy.

    These are the strongly connected components of more than one concept, or of a concept that is
    its own parent (Tarjan 1972, "Depth-first search and linear graph algorithms").
    """
    found: list[list[str]] = []
    number: dict[str, int] = {}  # in the order of the search
    lowest: dict[str, int] = {}  # the first concept still open that can be reached
    open_: list[str] = []
    is_open: set[str] = set()
    for start in parents:
        if start in number:
            continue
        path = [(start, iter(parents[start]))]
        number[start] = lowest[start] = len(number)
        open_.append(start)
        is_open.add(start)
        while path:
            concept, rest = path[-1]
            parent = next(rest, None)
            if parent is None:
                path.pop()
                if path:
                    below = path[-1][0]
                    lowest[below] = min(lowest[below], lowest[concept])
                if lowest[concept] == number[concept]:
                    group = [open_.pop()]
                    while group[-1] != concept:
                        group.append(open_.pop())
                    is_open.difference_update(group)
                    if len(group) > 1 or concept in parents.get(concept, ()):
                        found.append(sorted(group))
            elif parent not in number:
                number[parent] = lowest[parent] = len(number)
                open_.append(parent)
                is_open.add(parent)
                path.append((parent, iter(parents.get(parent, ()))))
            elif parent in is_open:
                lowest[concept] = min(lowest[concept], number[parent])
    return sorted(found)
