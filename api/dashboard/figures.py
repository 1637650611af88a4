"""Numbers and times as people read them. ``None`` is a dash."""

from datetime import datetime

from markupsafe import Markup

from core.report import Constraint

NOTHING = "–"
_UNITS = ("B", "kB", "MB", "GB", "TB")


def size(given: int | None) -> str:
    """Bytes, in powers of ten, as disks and downloads are told."""
    if given is None:
        return NOTHING
    value, unit = float(given), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:  # what would round to four digits
        value, unit = value / 1000, unit + 1
    return f"{value:.3g} {_UNITS[unit]}"


def count(given: float | None) -> str:
    """Parameters, MACs: three digits and a letter."""
    if given is None:
        return NOTHING
    value, letters = float(given), iter(("k", "M", "G", "T"))
    letter = ""
    while abs(value) >= 999.5:
        value, letter = value / 1000, next(letters)
    return f"{value:.3g} {letter}".rstrip()


def percent(given: float | None, digits: int = 1) -> str:
    """Of a fraction; ``digits`` behind the point."""
    return NOTHING if given is None else f"{100 * given:.{digits}f} %"


def duration(given: float | None) -> str:
    """Seconds, in the two largest units."""
    if given is None:
        return NOTHING
    seconds = round(given)
    for unit, size_ in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size_:
            smaller = {"d": ("h", 3600), "h": ("min", 60), "min": ("s", 1)}[unit]
            rest = seconds % size_ // smaller[1]
            return f"{seconds // size_} {unit}" + (f" {rest} {smaller[0]}" if rest else "")
    return f"{seconds} s"


def about(given: float | None) -> str:
    """Seconds that are estimated: of ten units or more, no smaller ones are told."""
    if given is None:
        return NOTHING
    unit = next((unit for unit in (86400, 3600, 60) if given >= 10 * unit), 1)
    return duration(unit * round(given / unit))


def moment(given: datetime | None) -> str | Markup:
    """UTC, as a ``<time>`` that a script tells in the reader's own."""
    if given is None:
        return NOTHING
    return Markup('<time datetime="{}">{} UTC</time>').format(
        given.isoformat(timespec="seconds"), given.strftime("%Y-%m-%d %H:%M")
    )


def achieved(given: Constraint) -> str:
    """What came of what was asked for."""
    if given.achieved is None:
        return NOTHING
    names = {"target_macs": "MACs", "target_latency": "latency", "max_error_increase": "errors"}
    sign = "+" if (given.kind == "max_error_increase") == (given.achieved >= 0) else "−"
    missed = "" if given.met else ", goal missed"
    return f"{sign}{percent(abs(given.achieved))} {names.get(given.kind, 'parameters')}{missed}"


def short(job_id: str) -> str:
    """The end of an id: its beginning is the time, which neighbours share."""
    return job_id[-8:]
