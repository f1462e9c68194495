"""Pages that need nothing else: one template language, one style, no network."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from koser import __version__
from koser.reporting.language import Phrases


def render_page(template: str, phrases: Phrases, values: Mapping[str, Any]) -> str:
    """Render a template; whatever comes from data is escaped.

    Parameters
    ----------
    template : str
        Name in ``templates/``.
    phrases : Phrases
        The language; templates call it ``t``.
    values : Mapping
        What the template names. One that it names and does not get is an error.
    """
    page = _environment().get_template(template)
    return page.render(t=phrases.values, language=phrases.language, version=__version__, **values)


@functools.cache  # it keeps the templates that it has compiled
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("koser.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Plots are made by koser.reporting.svg, which escapes every text it is given.
    environment.filters["svg"] = Markup
    return environment
