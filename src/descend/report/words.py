"""Numbers and reasons for stopping, as a person reads them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

# reason -> (the word on the badge, its tone, what it means)
REASONS: dict[str, tuple[str, str, str]] = {
    "step_limit": (
        "Step limit",
        "calm",
        "It took the number of steps it was given. A limit says nothing about the loss.",
    ),
    "epoch_limit": (
        "Epoch limit",
        "calm",
        "It went through the data as often as it was told to. A limit says nothing about the loss.",
    ),
    "time_limit": (
        "Time limit",
        "calm",
        "It used up the time it was given. A limit says nothing about the loss.",
    ),
    "converged": (
        "Converged",
        "good",
        "The gradient over all of the training data fell below the tolerance: the point is stationary.",
    ),
    "no_progress": (
        "Falls no more",
        "calm",
        "The loss stopped falling for as long as the patience allows. That is not convergence: "
        "the gradient may still be large, and another rate may go on.",
    ),
    "target": ("Target reached", "good", "The value that was asked for was reached."),
    "diverged": (
        "Diverged",
        "bad",
        "The loss left every bound, or stopped being a number. A lower learning rate, or clipping the "
        "gradient, is the first thing to try.",
    ),
    "interrupted": ("Interrupted", "warn", "It was told to stop from outside, and saved before it did."),
}
RUNNING = (
    "No result yet",
    "warn",
    "The directory holds no result: the run is still going, or it was killed. "
    "The page shows what was on disk when it was written.",
)


def number(value: Any, digits: int = 4) -> str:
    """A value for reading: thousands separated, powers of ten written out, strings as they are.

    >>> number(1150), number(0.01), number(1.25e-7), number(float("inf")), number(None)
    ('1,150', '0.01', '1.25×10⁻⁷', 'infinite', '–')
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, (list, tuple)):
        return ", ".join(number(each, digits) for each in value)
    if not isinstance(value, float):
        return str(value)
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("infinite" if value > 0 else "−infinite")
    text = f"{value:.{digits}g}"
    mantissa, _, exponent = text.partition("e")
    if exponent:
        power = str(int(exponent)).translate(_SUPERSCRIPTS)
        return f"{mantissa.replace('-', '−')}×10{power}"
    return text.replace("-", "−")


def real(value: Any) -> float | None:
    """A number from the record, where non-finite ones are written as strings; None for anything else.

    >>> real("Infinity"), real(3), real("fast"), real(None)
    (inf, 3.0, None, None)
    """
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, (int, float)):
        return float(value)
    return (
        {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}.get(value)
        if isinstance(value, str)
        else None
    )


def duration(seconds: float) -> str:
    """
    >>> duration(0.0421), duration(3.14), duration(75), duration(7265)
    ('42 ms', '3.1 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def verdict(result: Mapping[str, Any] | None) -> tuple[str, str, str]:
    """(word, tone, meaning) for the result of a run, or for a run without one."""
    if result is None:
        return RUNNING
    reason = str(result.get("reason", ""))
    return REASONS.get(reason, (reason or "Stopped", "calm", ""))


def sentence(text: str) -> str:
    """
    >>> sentence("the limit of 44 epochs was reached")
    'The limit of 44 epochs was reached.'
    """
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) or not text else text + "."


def title(key: str) -> str:
    """A history key as a heading.

    >>> title("validation_accuracy"), title("grad_norm"), title("weight_decay")
    ('Held-out accuracy', 'Gradient norm', 'Weight decay')
    """
    known = {
        "loss": "Loss",
        "train_loss": "Training loss",
        "lr": "Learning rate",
        "grad_norm": "Gradient norm",
        "validation_r2": "Held-out R²",
        "validation_rmse": "Held-out RMSE",
        "rmse": "RMSE",
        "r2": "R²",
    }
    if key in known:
        return known[key]
    text = key.replace("_", " ")
    if text.startswith("validation "):
        return "Held-out " + text[len("validation ") :]
    return text[:1].upper() + text[1:]
