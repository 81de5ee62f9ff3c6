"""How pages say times, lengths and counts."""

from datetime import UTC, datetime

from markupsafe import Markup


def clock(seconds: float) -> str:
    """Say a length of time as a clock does: 0:42, 1:02:03."""
    whole = max(0, int(seconds))
    hours, minutes = divmod(whole // 60, 60)
    text = f"{minutes}:{whole % 60:02}"
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else text


def moment(at_ms: int) -> Markup:
    """Say when something was, in UTC; a dash where it never was."""
    if not at_ms:
        return Markup("–")
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    machine = at.strftime("%Y-%m-%dT%H:%M:%SZ")
    return Markup('<time datetime="{}" title="{} UTC">{}</time>').format(
        machine, at.strftime("%Y-%m-%d %H:%M:%S"), at.strftime("%-d %b %H:%M:%S")
    )


def day(at_ms: int) -> Markup:
    """Say on what day something was; a dash where it never was."""
    if not at_ms:
        return Markup("–")
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    return Markup('<time datetime="{}">{}</time>').format(
        at.strftime("%Y-%m-%d"), at.strftime("%-d %b %Y")
    )


def count(number: float) -> str:
    """Say how many, its thousands apart: 3,004."""
    return f"{number:,.0f}"


def plural(number: int, one: str, many: str = "") -> str:
    """Say how many of what: 1 call, 2 calls."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def size(number: int) -> str:
    """Say how many bytes, in the unit that suits: 512 B, 3.4 MB."""
    amount = float(number)
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"
