"""Pages rendered from `templates/`: one file each, with styles, pictures and script inline.

All pages extend `layout.html` and share `style.css`. Every value is escaped, and a page may load
nothing from anywhere (its Content-Security-Policy).
"""

from __future__ import annotations

import base64
import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment


def render_page(template: str, /, **values: Any) -> str:
    """Render a page.

    Args:
        template: File name in `templates/`.
        **values: Values for the template; text is escaped.

    Raises:
        jinja2.UndefinedError: A value of the template is missing.
    """
    return _environment().get_template(template).render(values)


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("annotator.render"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = data_uri
    # `tojson` escapes sequences that could end a script element.
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    return environment


def data_uri(picture: bytes, media_type: str = "image/jpeg") -> str:
    """Data URI of an encoded picture."""
    return f"data:{media_type};base64,{base64.b64encode(picture).decode('ascii')}"
