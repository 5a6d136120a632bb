"""How numbers, durations and names are written for a person, wherever they are shown."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

_BLOCKS = "▁▂▃▄▅▆▇█"


def number(value: float, digits: int = 4) -> str:
    """`value` in `digits` significant digits.

    >>> number(0.08123456), number(1e-5), number(77812.3), number(float("nan")), number(float("-inf"))
    ('0.08123', '1e-05', '77,810', 'NaN', '-infinity')
    """
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "infinity" if value > 0 else "-infinity"
    shown = f"{value:.{digits}g}"
    return f"{float(shown):,.0f}" if "e+" in shown and abs(value) < 1e7 else shown


def metric(name: str, value: float) -> str:
    """A metric with its name; accuracies in percent.

    >>> metric("accuracy", 0.98055), metric("rmse", 53.21)
    ('accuracy 98.06 %', 'rmse 53.21')
    """
    if name.endswith("accuracy") and math.isfinite(value):
        return f"{name} {100 * value:.2f} %"
    return f"{name} {number(value)}"


def metrics(values: Mapping[str, float]) -> list[str]:
    """Every metric of held-out data, named without the prefix that the record gives them.

    >>> metrics({"validation_accuracy": 0.5, "validation_loss": 1.0})
    ['accuracy 50.00 %', 'loss 1']
    """
    return [
        metric(name.removeprefix("validation_").replace("_", " "), value) for name, value in values.items()
    ]


def duration(seconds: float) -> str:
    """A time for reading.

    >>> duration(0.21), duration(7.4), duration(64), duration(3720)
    ('0.2 s', '7.4 s', '1 min 4 s', '1 h 2 min')
    """
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def short(name: str) -> str:
    """What a configuration calls a rule or model, without the folder of its file.

    >>> short("own:mine"), short("/home/me/my_rule.py:mine"), short("adam")
    ('mine', 'my_rule.py:mine', 'adam')
    """
    return re.sub(r".*[/\\](?=[^/\\]+\.py(:\w+)?\Z)", "", name.removeprefix("own:"))


def clock(seconds: float) -> str:
    """A time that ticks.

    >>> clock(4), clock(75), clock(3700)
    ('0:04', '1:15', '1:01:40')
    """
    whole = max(0, math.ceil(seconds))
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d}"
    return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"


def count(n: int, noun: str) -> str:
    """A number of things.

    >>> count(1, "step"), count(12000, "step")
    ('1 step', '12,000 steps')
    """
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def sparkline(values: Sequence[float]) -> str:
    """One block a value, from the lowest to the highest; on a logarithmic scale where all are positive.

    >>> sparkline([8.0, 4.0, 2.0, 1.0])
    '█▆▃▁'
    """
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        return ""
    logarithmic = min(finite) > 0
    heights = [math.log(v) if logarithmic else v for v in finite]
    low, high = min(heights), max(heights)
    if high == low:
        return _BLOCKS[0] * len(heights)
    top = len(_BLOCKS) - 1
    return "".join(_BLOCKS[round(top * (h - low) / (high - low))] for h in heights)
