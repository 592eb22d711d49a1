"""Draw the rooms of coopt, and which of them import which, from the code itself.

python tools/draw_rooms.py           # write docs/_static/rooms.svg
python tools/draw_rooms.py --check   # say whether the picture is current
"""

from __future__ import annotations

import ast
import sys
import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "coopt"
PICTURE = ROOT / "docs" / "_static" / "rooms.svg"

# In pixels: the height of a room, the width of its name and words, and the size of a cell of the matrix.
ROW, WORDS, CELL, TOP, MARGIN = 46, 680, 34, 96, 16
INK, PALE, FORWARD, PASSIVE = "#222222", "#f3f6f9", "#0072B2", "#999999"


def rooms() -> list[str]:
    """The rooms in the order in which they may import: each only those before it."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = settings["tool"]["importlinter"]["contracts"]
    layers = [layer.split(" | ") for layer in contract["layers"]]
    # Beside the rooms stand single files that re-export a public path, the version, and example data.
    found = [name for layer in reversed(layers) for name in layer]
    return [name for name in found if name in ("errors", "cli") or (PACKAGE / name / "__init__.py").exists()]


def words(room: str) -> str:
    """The first sentence that a room says of itself."""
    path = PACKAGE / room / "__init__.py" if (PACKAGE / room).is_dir() else PACKAGE / f"{room}.py"
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.splitlines()[0].replace("``", "")


def arrows() -> set[tuple[str, str]]:
    """Which room imports which; imports inside functions and for types alone count as well."""
    names, found = rooms(), set()
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room not in names:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules: list[str] = []
            if isinstance(node, ast.ImportFrom):
                # "from coopt.problem import limits" names a module of the room.
                modules = [node.module or ""]
            elif isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            for module in modules:
                head, _, rest = module.partition(".")
                other = rest.partition(".")[0]
                if head == "coopt" and other in names and other != room:
                    found.add((room, other))
    return found


def text(x: float, y: float, content: str, size: int, more: str = "") -> str:
    """A line of text."""
    return f'<text x="{x}" y="{y}" font-size="{size}" fill="{INK}"{more}>{escape(content)}</text>'


def picture() -> str:
    """The rooms as rows, and a dot where the room of the row imports that of the column."""
    names, known = [name for name in rooms() if name != "data"], arrows()
    left = MARGIN + WORDS + 20
    width, height = left + CELL * len(names) + 3 * MARGIN, TOP + ROW * len(names) + MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">',
        "<title>The rooms of coopt, and which imports which</title>",
        f'<rect width="{width}" height="{height}" fill="white"/>',
        text(MARGIN, TOP - 12, "room", 12, ' font-weight="bold"'),
        text(left - 4, 18, "imports", 12, ' font-weight="bold"'),
        text(
            MARGIN,
            26,
            f"{len(names)} rooms, {len(known)} arrows between them, {len(arrows_back())} that run back",
            12,
        ),
    ]
    for column, name in enumerate(names):
        x = left + CELL * (column + 0.5)
        lines.append(text(x, TOP - 8, name, 12, f' transform="rotate(-50 {x} {TOP - 8})"'))
    for row, name in enumerate(names):
        y = TOP + ROW * row
        box = f'width="{WORDS}" height="{ROW - 6}" rx="6" fill="{PALE}" stroke="{FORWARD}"'
        lines.append(f'<rect x="{MARGIN}" y="{y + 3}" {box}/>')
        lines.append(text(MARGIN + 12, y + 20, name, 14, ' font-weight="bold"'))
        lines.append(text(MARGIN + 12, y + 35, words(name), 11))
        for column, other in enumerate(names[: row + 1]):
            x, middle = left + CELL * (column + 0.5), y + ROW / 2
            if column == row:
                square = f'x="{x - 7}" y="{middle - 7}" width="14" height="14"'
                lines.append(f'<rect {square} fill="none" stroke="{PASSIVE}"/>')
            else:
                radius, colour = (8, FORWARD) if (name, other) in known else (1.5, PASSIVE)
                lines.append(f'<circle cx="{x}" cy="{middle}" r="{radius}" fill="{colour}"/>')
    lines.append("</svg>")
    return "\n".join(lines) + "\n"


def arrows_back() -> set[tuple[str, str]]:
    """Rooms that import one after them: there is no place for them in the picture, and there must be none."""
    order = rooms()
    return {(room, other) for room, other in arrows() if order.index(other) > order.index(room)}


def main() -> int:
    """Write the picture, or compare it with the code."""
    drawn = picture()
    if sys.argv[1:] == ["--check"]:
        current = PICTURE.exists() and PICTURE.read_text(encoding="utf-8") == drawn
        print("current" if current else "out of date: run python tools/draw_rooms.py")
        return int(not current)
    PICTURE.write_text(drawn, encoding="utf-8")
    print(f"{PICTURE}: {len(arrows())} arrows")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
