"""The loss over one or two parameters, as a curve or as shading with contour lines, and the paths on it."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from .read import Floats, Run
from .sections import is_own
from .series import packed, short, shorts
from .words import real

LINES = 14
# A path of up to this many points is drawn whole; of a longer one the first third of it, then evenly.
POINTS = 600
# Contour lines are written in whole units, this many along each side of the grid.
_UNITS = 2000
_SHADE = (56, 104, 158)
# Where a run starts is its own affair; what is left says which function it descends.
_NOT_THE_PROBLEM = ("start", "init", "seed")


def same_problem(one: Run, other: Run) -> bool:
    """Whether two runs descend one function, so that their paths belong on one surface.

    Two functions of the user's may bear one name; such surfaces must also agree where both were measured.
    """
    if _problem(one) != _problem(other):
        return False
    if not is_own(one.setting("problem", "function")):
        return True
    assert one.surface is not None
    assert other.surface is not None
    return _agree(one.surface, other.surface)


def _problem(run: Run) -> tuple[Any, ...]:
    config, data = run.config, run.data or {}
    asked = [_asked(config.get(part)) for part in ("problem", "model")]
    return ((run.surface or {}).get("names"), *asked, data.get("fingerprint") or _asked(config.get("data")))


def _asked(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _asked(each) for key, each in sorted(value.items()) if key not in _NOT_THE_PROBLEM}
    return value


def figure(runs: Sequence[tuple[int, Run]]) -> dict[str, Any] | None:
    """What the page needs to draw `runs` (place in the report, run) on the surface they share.

    {"names", "dims", "window": [x0, x1, y0, y1], "curve" | "grids", "paths", "way", "note"}; None when no run
    has a grid that can be drawn. Grids of several runs are laid over one another, the widest lowest, with one
    shading and one set of levels for all.
    """
    surfaces = [run.surface for _, run in runs if run.surface is not None]
    names = [str(name) for name in surfaces[0].get("names") or ["x", "y"][: len(surfaces[0].get("axes", []))]]
    found: dict[str, Any] = {"names": names, "dims": len(names), "note": None}
    samples = [each["samples"] for each in surfaces if isinstance(each.get("samples"), int)]
    if samples:
        found["note"] = f"The loss is that of the first {min(samples):,} training samples."
    found["way"] = "up" if runs[0][1].setting("problem", "maximize") else "down"
    found["paths"] = [path for place, run in runs if (path := _path(place, run))]
    if len(names) == 1:
        curve = _curve(surfaces)
        if curve is None:
            return None
        found["curve"] = {"x": shorts(curve[0], 6), "y": shorts(curve[1], 6)}
        xs, ys = curve[0], curve[1][np.isfinite(curve[1])]
        if not len(ys):
            return None
        # Walls that no path climbed are cut off, so that the floor is seen.
        low, top = float(ys.min()), float(ys.max())
        walked = [loss for path in found["paths"] for loss in path["loss"] if loss is not None and loss < top]
        high = low + 1.25 * (max(walked) - low) if walked else top
        found["window"] = [xs.min(), xs.max(), low, min(top, high) if high > low else top]
    else:
        grids = [grid for each in surfaces if (grid := _grid(each)) is not None]
        if not grids:
            return None
        grids.sort(key=lambda grid: -np.ptp(grid[0]) * np.ptp(grid[1]))
        unlike = {tuple(map(float, (g[0][0], g[0][-1], g[1][0], g[1][-1]))): g for g in grids}
        _drape(list(unlike.values()), found)
    found["window"] = [float(edge) for edge in found["window"]]
    return found


def _curve(surfaces: Sequence[dict[str, Any]]) -> tuple[Floats, Floats] | None:
    xs: list[Floats] = []
    ys: list[Floats] = []
    for each in surfaces:
        axes = each.get("axes") or []
        x, y = _floats(axes[0] if axes else []), _floats(each.get("loss") or [])
        if len(x) and x.shape == y.shape:
            xs.append(x)
            ys.append(y)
    if not xs:
        return None
    x, first = np.unique(np.concatenate(xs), return_index=True)
    return x, np.concatenate(ys)[first]


def _grid(surface: dict[str, Any]) -> tuple[Floats, Floats, Floats] | None:
    axes = surface.get("axes") or []
    if len(axes) != 2:
        return None
    x, y = _floats(axes[0]), _floats(axes[1])
    rows = [_floats(row) for row in surface.get("loss") or []]
    if len(x) < 2 or len(y) < 2 or len(rows) != len(y) or any(len(row) != len(x) for row in rows):
        return None
    z = np.stack(rows)
    return (x, y, z) if np.isfinite(z).any() else None


def _floats(values: Sequence[Any]) -> Floats:
    return np.asarray(
        [np.nan if (found := real(value)) is None else found for value in values], dtype=np.float64
    )


def _agree(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether the values of `other` lie among those of `one` around them; False where none compare."""
    if len(one.get("names") or []) == 1:
        curves = [_curve([each]) for each in (one, other)]
        grids = [None if each is None else (each[0], np.zeros(1), each[1][None]) for each in curves]
    else:
        grids = [_grid(one), _grid(other)]
    if grids[0] is None or grids[1] is None:
        return False
    (x, y, z), (u, v, w) = grids[0], grids[1]
    columns = np.flatnonzero((u >= x[0]) & (u <= x[-1]))[:: max(1, len(u) // 30)]
    rows = np.flatnonzero((v >= y[0]) & (v <= y[-1]))[:: max(1, len(v) // 30)]
    for row in rows.tolist():
        at_y = int(np.searchsorted(y, v[row]))
        for column in columns.tolist():
            at_x = int(np.searchsorted(x, u[column]))
            near = z[max(0, at_y - 2) : at_y + 2, max(0, at_x - 2) : at_x + 2]
            value, slack = w[row, column], 0.1 * np.ptp(near) + 1e-6 * np.abs(near).max()
            if np.isfinite(near).all() and not near.min() - slack <= value <= near.max() + slack:
                return False
    return bool(len(rows) and len(columns))


def _drape(grids: list[tuple[Floats, Floats, Floats]], found: dict[str, Any]) -> None:
    """Add "window", "grids" (shading as PNG), "lines" (contours) and, where contourpy is missing, "note"."""
    heights = np.concatenate([z[np.isfinite(z)] for _, _, z in grids])
    # A path comes closer to the bottom than the points of a grid do.
    floor = min([float(heights.min()), *_reached(found["paths"], *grids[0][:2])])
    above = heights - floor
    # Equal steps of log(1 + height / knee): even near the bottom, by ratios far above it.
    knee = float(np.quantile(above, 0.02)) or float(above.max()) / 100 or 1.0
    top = float(np.log1p(above.max() / knee)) or 1.0
    found["window"] = [
        min(x[0] for x, _, _ in grids),
        max(x[-1] for x, _, _ in grids),
        min(y[0] for _, y, _ in grids),
        max(y[-1] for _, y, _ in grids),
    ]
    levels = [floor + knee * float(np.expm1(top * k / (LINES + 1))) for k in range(1, LINES + 1)]
    found["scale"] = [
        short(floor, 3),
        *(short(level, 3) for level in levels),
        short(floor + float(above.max()), 3),
    ]
    found["grids"] = []
    grids = [_refined(x, y, z, floor) for x, y, z in grids]
    for x, y, z in grids:
        depth = 1 - np.log1p((z - floor) / knee) / top
        window = [float(x[0]), float(x[-1]), float(y[0]), float(y[-1])]
        found["grids"].append({"window": window, "shade": _shade(depth), "lines": []})
    try:
        import contourpy
    except ImportError:
        found["note"] = f"{found['note'] or ''} " + (
            "Shading only: contour lines need contourpy, which is not installed here "
            "(pip install 'descend[report]', then write the report again)."
        )
        return
    for (x, y, z), grid in zip(grids, found["grids"], strict=True):
        maker = contourpy.contour_generator(x, y, np.ma.masked_invalid(z), line_type="Separate")
        low, size = np.asarray([x[0], y[0]]), np.asarray([x[-1] - x[0], y[-1] - y[0]])
        for place, level in enumerate(levels):
            lines = cast(list[Floats], maker.lines(level))
            d = "".join(_line((line - low) / size * _UNITS) for line in lines)
            if d:
                grid["lines"].append({"level": short(level, 3), "d": d, "bold": place % 3 == 0})
        grid["units"] = _UNITS


def _reached(paths: Sequence[dict[str, Any]], x: Floats, y: Floats) -> list[float]:
    """The losses of the points of paths that lie within the axes."""
    return [
        loss
        for path in paths
        for at, loss in zip(path["x"], path["loss"], strict=True)
        if None not in (*at, loss) and x[0] <= at[0] <= x[-1] and y[0] <= at[1] <= y[-1]
    ]


def _refined(x: Floats, y: Floats, z: Floats, floor: float) -> tuple[Floats, Floats, Floats]:
    """The grid with two more lines between any two, by Catmull and Rom's cubic (1974), not below `floor`.

    A narrow valley that runs across a coarse grid would otherwise be drawn as a chain of islands.
    """
    if min(z.shape) < 3 or max(z.shape) > 100 or not np.isfinite(z).all():
        return x, y, z
    across, up = _cubic(len(x)), _cubic(len(y))
    return across @ x, up @ y, np.maximum(up @ z @ across.T, floor)


def _cubic(size: int, parts: int = 3) -> Floats:
    """The matrix [(size - 1) * parts + 1, size] that interpolates between `size` equally spaced values."""
    unit = np.eye(size)
    before, after = 3 * unit[0] - 3 * unit[1] + unit[2], 3 * unit[-1] - 3 * unit[-2] + unit[-3]
    points = np.vstack((before, unit, after))
    rows = []
    for k in range((size - 1) * parts + 1):
        cell, part = divmod(k, parts)
        t = part / parts
        weights = (-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2)
        rows.append(sum(w / 2 * points[min(cell + place, size + 1)] for place, w in enumerate(weights)))
    return np.asarray(rows)


def _line(points: Floats) -> str:
    """An SVG path in relative whole units through `points` [N, 2], less those on the line between others."""
    whole = np.rint(_plain(points)).astype(np.int64)
    moves = np.diff(whole, axis=0)
    moves = moves[np.any(moves != 0, axis=1)]
    if not len(moves):
        return ""
    words = " ".join(f"{a} {b}" for a, b in moves.tolist()).replace(" -", "-")
    return f"M{whole[0, 0]} {whole[0, 1]}l{words}"


def _plain(points: Floats, tolerance: float = 0.7) -> Floats:
    """Douglas and Peucker's thinning: no dropped point is further than `tolerance` from the line kept."""
    keep = np.zeros(len(points), dtype=bool)
    keep[[0, -1]] = True
    spans = [(0, len(points) - 1)]
    while spans:
        start, end = spans.pop()
        if end - start < 2:
            continue
        a, b = points[start], points[end]
        inner, along = points[start + 1 : end] - a, b - a
        length = float(np.hypot(*along))
        off = (
            np.abs(inner[:, 0] * along[1] - inner[:, 1] * along[0]) / length
            if length
            else np.hypot(inner[:, 0], inner[:, 1])
        )
        far = int(off.argmax())
        if off[far] > tolerance:
            keep[start + 1 + far] = True
            spans += [(start, start + 1 + far), (start + 1 + far, end)]
    return points[keep]


def _shade(depth: Floats) -> str:
    """`depth` [Y, X], 1 at the lowest loss, as a PNG data address: one colour, the more opaque the deeper."""
    stride = -(-max(depth.shape) // 128)
    levels = np.clip(np.nan_to_num(depth[::stride, ::stride], nan=0.0), 0, 1)
    pixels: npt.NDArray[np.uint8] = np.rint(levels[::-1] * 63).astype(np.uint8)
    height, width = pixels.shape
    filtered = pixels.copy()
    filtered[1:] -= pixels[:-1]
    raw = b"".join((b"\x02" if row else b"\x00") + filtered[row].tobytes() for row in range(height))

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    png = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0))
        + chunk(b"PLTE", bytes(_SHADE) * 64)
        + chunk(b"tRNS", bytes(round(255 * k / 63) for k in range(64)))
        + chunk(b"IDAT", zlib.compress(raw, 9))
        + chunk(b"IEND", b"")
    )
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _path(place: int, run: Run) -> dict[str, Any] | None:
    """One run's path: {"run", "step", "x" [points, dims], "loss", "gradient", "of", "lost"}."""
    points = (run.surface or {}).get("path") or []
    total = len(points)
    if not total:
        return None
    if total > POINTS:
        head = POINTS // 3
        rest = np.linspace(head, total - 1, POINTS - head).round().astype(int).tolist()
        points = [points[k] for k in [*range(head), *rest]]
    return {
        "run": place,
        "step": packed(np.asarray([point["step"] for point in points], dtype=np.float64)),
        "x": [shorts(_floats(point["x"]), 6) for point in points],
        "loss": [None if (loss := real(point.get("loss"))) is None else short(loss, 6) for point in points],
        "gradient": [shorts(_floats(point.get("gradient") or []), 4) for point in points],
        "of": total if total > POINTS else 0,
    }
