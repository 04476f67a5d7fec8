"""Pages that are one file: style, pictures and script within, and nothing fetched from anywhere."""

from __future__ import annotations

import base64
import html
from typing import Literal

PictureType = Literal["image/jpeg", "image/png"]

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
_STYLE = """
:root { --ground: #f4f6f8; --card: #ffffff; --text: #1b2530; --muted: #53606d; --line: #d5dbe1;
  --action: #175f9e; --soft: #e9f0f7; --chosen: #d9eee2; --fill: #2f8a5b; --track: #e3e8ed;
  --warning: #fff3d6; color-scheme: light;
  font: 1rem/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #11161b; --card: #1a2129; --text: #e5eaef; --muted: #a4b0bb; --line: #313b45;
    --action: #7fbcf2; --soft: #22303e; --chosen: #1d4531; --fill: #4fb582; --track: #2c3641;
    --warning: #43330c; color-scheme: dark; } }
*, *::before, *::after { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem 1rem 3rem;
  background: var(--ground); color: var(--text); }
h1 { font-size: 1.375rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.125rem; margin: 2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
p { margin: 0 0 .75rem; }
.muted { color: var(--muted); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  padding: 1rem; margin: 0 0 1rem; }
.row { display: flex; flex-wrap: wrap; gap: .75rem; align-items: flex-start; }
figure { margin: 0; max-width: 12rem; }
figcaption { font-size: .8125rem; color: var(--muted); overflow-wrap: anywhere; }
img { display: block; max-width: 100%; border-radius: .25rem; background: #000; }
table { border-collapse: collapse; background: var(--card); font-size: .9375rem; }
th, td { text-align: left; vertical-align: top; padding: .375rem .75rem;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
code { font: .875em ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
"""


def document(title: str, body: str, *, style: str = "", script: str = "") -> str:
    """A whole page.

    Args:
        title: Plain text.
        body: HTML; whatever comes from outside has to be escaped in it (`text`).
        style: CSS after the shared one (its colours are variables: --card, --muted, --fill, ...).
        script: JavaScript, run at the end.
    """
    ending = f"<script>\n{script}\n</script>\n" if script else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{_STYLE}{style}</style>\n</head>\n"
        f"<body>\n{body}\n{ending}</body>\n</html>\n"
    )


def text(value: object) -> str:
    """Anything as text that is safe in an element and in a quoted attribute."""
    return html.escape(str(value), quote=True)


def data_uri(picture: bytes, type_: PictureType = "image/jpeg") -> str:
    """An encoded picture as the address of an <img>."""
    return f"data:{type_};base64,{base64.b64encode(picture).decode('ascii')}"


def picture(source: bytes, alt: str, type_: PictureType = "image/jpeg", *, width: int = 160) -> str:
    """An <img>, at most `width` pixels wide; a note where there is no picture (b"")."""
    if not source:
        return f'<p class="muted">no picture: {text(alt)}</p>'
    return f'<img src="{data_uri(source, type_)}" alt="{text(alt)}" style="max-width:{width}px">'
