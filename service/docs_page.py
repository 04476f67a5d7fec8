"""`/docs`: the OpenAPI document as plain HTML, without scripts or requests to other hosts."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
code { font-family: ui-monospace, monospace; }
section { border-top: 1px solid #8886; margin-top: 1.5rem; }
table { border-collapse: collapse; }
th, td { text-align: left; vertical-align: top; padding: .2rem 1rem .2rem 0; }
"""
POLICY = (
    "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; "
    f"style-src 'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'"
)


def render_docs(document: Mapping[str, Any]) -> str:
    """An OpenAPI 3.1 document as a page."""
    info = document["info"]
    operations = "".join(
        _operation(method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    )
    schemas = "".join(
        _schema(name, schema) for name, schema in document["components"]["schemas"].items()
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(info['title'])}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>"
        f"<p>{escape(info['description'])}</p>"
        '<p>For programs: <a href="openapi.json">openapi.json</a>.</p>'
        f"<main>{operations}<h2>Objects</h2>{schemas}</main></body></html>"
    )


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> str:
    parameters = [
        (p["name"], _type(p["schema"]), p.get("description", p["schema"].get("description", "")))
        for p in operation.get("parameters", [])
    ]
    bodies = operation.get("requestBody", {}).get("content", {})
    answers = [
        (status, ", ".join(answer.get("content", {})) or "-", answer["description"])
        for status, answer in operation["responses"].items()
    ]
    return (
        f"<section><h2><code>{method.upper()} {escape(path)}</code></h2>"
        f"<p>{escape(operation.get('description', operation['summary']))}</p>"
        + _table(("Parameter", "Type", ""), parameters)
        + (f"<p>Body: {escape(', '.join(bodies))}</p>" if bodies else "")
        + _table(("Status", "Content", ""), answers)
        + "</section>"
    )


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    rows = [
        (field, _type(value), value.get("description", ""))
        for field, value in schema.get("properties", {}).items()
    ]
    description = f"<p>{escape(schema.get('description', ''))}</p>"
    table = _table(("Member", "Type", ""), rows)
    return f'<section id="{escape(name)}"><h3>{escape(name)}</h3>{description}{table}</section>'


def _type(schema: Mapping[str, Any]) -> str:
    return " or ".join(_types(schema))


def _types(schema: Mapping[str, Any]) -> Iterator[str]:
    if "$ref" in schema:
        yield schema["$ref"].rsplit("/", 1)[-1]
    elif "anyOf" in schema:
        for choice in schema["anyOf"]:
            yield from _types(choice)
    elif "enum" in schema:
        yield from map(str, schema["enum"])
    elif schema.get("type") == "array":
        yield f"list of {_type(schema['items'])}"
    else:
        bounds = [f"{word} {schema[key]}" for key, word in _BOUNDS.items() if key in schema]
        yield " ".join([schema.get("type", "anything"), *bounds])


_BOUNDS = {"minimum": "from", "maximum": "to", "maxLength": "of length up to"}


def _table(heads: tuple[str, ...], rows: list[tuple[str, str, str]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"
