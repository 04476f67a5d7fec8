"""The types of answers are those of the service: its OpenAPI document says more, never less."""

from __future__ import annotations

import types
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints, is_typeddict

import pytest

from annotator.client import answers
from annotator.client.calls import AnnotateOptions, Filters, ListOptions, PictureOptions

schemas = pytest.importorskip("service.schemas", reason="the extra `service` is not installed")

TYPES = {
    name: made
    for name, made in vars(answers).items()
    if is_typeddict(made) and made is not answers.Image
}


def shape(made: Any) -> Any:
    """A type as nested values; models by their names, literals as what they are made of."""
    if get_origin(made) is Annotated:
        return shape(get_args(made)[0])
    if get_origin(made) is Literal:
        (kind,) = {type(value) for value in get_args(made)}
        return kind
    if get_origin(made) in (types.UnionType, __import__("typing").Union):
        return frozenset(map(shape, get_args(made)))
    if get_args(made):
        return (get_origin(made), *map(shape, get_args(made)))
    return made.__name__ if made.__name__ in TYPES else made


@pytest.mark.parametrize("name", TYPES)
def test_an_answer_has_what_its_type_promises(name: str) -> None:
    given = {key: field.annotation for key, field in getattr(schemas, name).model_fields.items()}
    promised = get_type_hints(TYPES[name])
    assert promised and promised.keys() <= given.keys()
    for key, made in promised.items():
        assert shape(made) == shape(given[key]), key


def test_an_image_has_its_state_beside_the_answer() -> None:
    assert get_type_hints(answers.Image) == {**get_type_hints(answers.ImageOut), "etag": str}


@pytest.mark.parametrize(
    ("options", "query"),
    [
        (AnnotateOptions, "AnnotateQuery"), (Filters, "MapQuery"), (ListOptions, "ImagesQuery"),
        (PictureOptions, "PictureQuery"),
    ],
)  # fmt: skip
def test_options_are_those_of_the_service(options: Any, query: str) -> None:
    assert get_type_hints(options).keys() == getattr(schemas, query).model_fields.keys()
