"""Numbers and lists as the report writes them."""

from collections.abc import Sequence

DASH = "--"  # replaces a missing figure


def number(value: float | None, std: float | None = None) -> str:
    """A number with two decimals, and with its standard deviation if there is one."""
    if value is None:
        return DASH
    return f"{value:.2f}" if std is None else f"{value:.2f} ± {std:.2f}"


def signed(value: float | None) -> str:
    """A difference with its sign (a true minus); a rounded zero has none."""
    if value is None:
        return DASH
    text = f"{abs(value):.2f}"
    if text == "0.00":
        return text
    return ("+" if value > 0 else "\u2212") + text


def bracketed(low: float | None, high: float | None, sign: bool = False) -> str:
    """An interval."""
    if low is None or high is None:
        return DASH
    write = signed if sign else number
    return f"[{write(low)}, {write(high)}]"


def probability(p: float | None) -> str:
    """A p with three decimals; one just below 0.05 does not become 0.050."""
    if p is None:
        return DASH
    if p < 0.001:
        return "<0.001"
    return "<0.050" if 0.0495 <= p < 0.05 else f"{p:.3f}"


def percent(fraction: float | None) -> float | None:
    """A fraction 0..1 in percent, not rounded, because rounding twice can give another digit."""
    return None if fraction is None else 100 * fraction


def count(amount: int, noun: str) -> str:
    return f"{amount} {noun}" if amount == 1 else f"{amount} {noun}s"


def px(width: int, height: int) -> str:
    return f"{width}×{height}"


def listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def best(texts: Sequence[str], better: str) -> str | None:
    """The best of a column as printed, so that ties are bold.

    None for fewer than two values, and if the best of a score that should be high is 0.
    """
    values = [text for text in texts if text != DASH]
    if len(values) < 2:
        return None
    if better == "lower":
        return min(values, key=float)
    best = max(values, key=float)
    return best if float(best) else None
