"""What every page of a report shares: templates that escape, a policy for scripts, how values are shown.

Text from users (names, cells, sidecars) is escaped by jinja2. Should something pass, the page's policy runs only the
scripts whose hashes it names, and loads nothing.
"""

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from longflow.inference.output import INTENDED_USE
from longflow.reading import parse_number
from longflow.version import __version__

HERE = Path(__file__).parent
#: folder below the predictions, or the results of a dataset
REPORT = "report"


def cell(text: str) -> str:
    """Show a cell: numbers with five digits, text as it is. The CSV in the page has all digits."""
    number = parse_number(text)
    return text if number is None or len(text) < 8 else f"{number:.5g}"


def short(value: object) -> str:
    """Show a value of a table: numbers with five digits, an empty cell where there is none."""
    if isinstance(value, bool) or value is None or not isinstance(value, int | float):
        return "" if value is None else cell(readable(value))
    return str(value) if isinstance(value, int) else f"{value:.5g}"


def interval(number: Mapping[str, Any] | None) -> str:
    """Show a mean over subjects with its interval; a dash where it is not defined.

    >>> interval({"mean": 0.5, "interval": [0.25, 0.75]})
    '0.5 (0.25 to 0.75)'
    """
    if number is None or number["mean"] is None:
        return "" if number is None else "–"
    found = number["interval"]
    between = f" ({found[0]:.4g} to {found[1]:.4g})" if found else ""
    return f"{number['mean']:.4g}{between}"


def readable(value: object) -> str:
    """Show a value of a sidecar."""
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {readable(one)}" for key, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(readable, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}" if value != int(value) else f"{value}"
    return "none" if value is None else str(value)


@cache
def file_text(name: str) -> str:
    """Read a file of this folder. :param name: relative, as "templates/page.css"."""
    return (HERE / name).read_text(encoding="utf-8")


@cache
def templates() -> jinja2.Environment:
    """Return the templates: all escape what they are given, and refuse what they are not given."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    filters = {"cell": cell, "readable": readable, "short": short, "interval": interval}
    environment.filters |= {**filters, "number": lambda value: f"{value:g}"}
    return environment


def link_to(target: Path, page: Path) -> str:
    """Return the link from a page to another file, so that folders which are moved together stay linked."""
    return quote(os.path.relpath(target.resolve(), page.resolve().parent).replace(os.sep, "/"))


def policy_for(scripts: Sequence[str]) -> str:
    """Return the Content-Security-Policy of a page: these scripts run, and nothing is loaded from elsewhere."""
    hashes = (base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in scripts)
    allowed = " ".join(f"'sha256-{one}'" for one in hashes) + " 'wasm-unsafe-eval'" if scripts else "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "connect-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def render(template: str, scripts: Sequence[str], **values: Any) -> str:
    """Fill a template.

    :param scripts: those of the page that run.
    :param values: text from users among them is escaped.
    :returns: HTML.
    """
    common = {"version": __version__, "intended_use": INTENDED_USE, "policy": policy_for(scripts)}
    style = Markup(file_text("templates/page.css"))
    return templates().get_template(template).render(**common, style=style, **values)
