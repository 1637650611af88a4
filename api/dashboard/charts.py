"""Charts, drawn on the server as SVG. Its colours are the style sheet's, so that one picture serves both themes."""

import hashlib
import re
from typing import Any

import altair as alt
import vl_convert
from markupsafe import Markup

FONT = "system-ui, sans-serif"
SCALE = 1.2  # of a figure where there is room: its letters are then as large as a table's, and on a phone 11 pixels
_AXIS = {
    "labelColor": "var(--muted)",
    "labelFontSize": 12,
    "titleColor": "var(--muted)",
    "titleFontSize": 12,
    "titleFontWeight": "normal",
    "titlePadding": 10,
    "gridColor": "var(--line)",
    "domain": False,
    "ticks": False,
    "labelPadding": 6,
}
CONFIG: dict[str, Any] = {
    "background": None,
    "font": FONT,
    "view": {"stroke": None},
    "padding": {"left": 16, "right": 12, "top": 6, "bottom": 6},  # the reader's font may be wider than the drawer's
    "axis": _AXIS,
    "axisX": {"grid": False, "domain": True, "domainColor": "var(--line)"},
    "legend": {"labelColor": "var(--text)", "labelFontSize": 12, "titleColor": "var(--muted)", "titleFontSize": 12},
    "title": {"color": "var(--text)"},
}
# What a specification's relative addresses are taken to be relative to, whatever one says.
_BASE = "https://vega.github.io/vega-datasets/"
_LINK = re.compile(
    rf'<a xlink:href="(?:{re.escape(_BASE)})?(/[^"]*)"[^>]*>'
    r'<(\w+) aria-label="([^"]*)" role="[^"]*"(?: aria-roledescription="[^"]*")?'
)
_NAMELESS = re.compile(r' role="graphics-(?:object|symbol)" aria-roledescription="[a-z]+ mark container"')
_ID = re.compile(r'(\bid="|url\(#)')
_FRAME = re.compile(r"<svg [^>]*?viewBox=\"0 0 ([\d.]+) ([\d.]+)\"[^>]*>")


def draw(chart: alt.TopLevelMixin, *, title: str, description: str) -> Markup:
    """A figure that shrinks where there is no room. ``title`` names it, ``description`` is its caption.

    Marks with an ``href`` on this server become links, which are named by their ``description``.
    """
    specification = chart.to_dict(validate=False)  # a third of the time, and every chart is tested
    specification["config"] = CONFIG
    svg = vl_convert.vegalite_to_svg(specification)
    own = hashlib.sha256(svg.encode()).hexdigest()[:8]  # charts share a page, and each numbers its clips from one
    svg = _ID.sub(rf"\g<1>{own}-", svg)
    svg, links = _LINK.subn(r'<a href="\1" aria-label="\3"><\2 aria-hidden="true"', svg)
    svg = _NAMELESS.sub("", svg)  # a thing that a reader stops at has to be called something
    role = "group" if links else "img"  # what is inside a picture, nobody can go to
    frame = Markup('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {} {}" width="{}" role="{}" aria-label="{}">')
    opening = _FRAME.match(svg)
    assert opening is not None
    width, height = opening.groups()
    head = frame.format(width, height, round(SCALE * float(width)), role, title)
    drawn = head + Markup(svg[opening.end() :])  # noqa: S704 - escaped by its maker
    return Markup('<figure class="chart">{}<figcaption>{}</figcaption></figure>').format(drawn, description)
