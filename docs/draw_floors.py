"""Draw the floors of the house into docs/floors.svg, from the layers in pyproject.toml and the imports themselves.

    python docs/draw_floors.py            # with --check it only compares

Folders that may not import each other share a floor. An arrow goes from a folder to one that it imports; an arrow that
follows from others is left out, so that the image shows what stands on what.
"""

import ast
import html
import sys
import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[1]
IMAGE = ROOT / "docs" / "floors.svg"
PACKAGE = "lineproof"
#: All lengths are in px of the SVG's own scale.
WIDTH, MARGIN, TITLE_HEIGHT = 1000, 20, 64
BOX_WIDTH, BOX_HEIGHT, BOX_GAP, FLOOR_PAD, FLOOR_GAP = 730, 46, 8, 10, 12
LANE_GAP, SPREAD = 22, 7
LONGEST_PURPOSE, LONGEST_ROOMS = 92, 68
STYLE = """
  svg { --page: #ffffff; --floor: #f1f3f5; --box: #ffffff; --edge: #8a939c; --ink: #1b1f23; --soft: #57606a;
        --a: #0b62c4; --b: #a13d00; --c: #1a7f37; --d: #8250df }
  @media (prefers-color-scheme: dark) {
    svg { --page: #0d1117; --floor: #171c24; --box: #21262d; --edge: #6e7681; --ink: #e6edf3; --soft: #9aa4ae;
          --a: #6cb6ff; --b: #f0a45d; --c: #5fd17f; --d: #c9a5ff }
  }
  text { font: 13px system-ui, sans-serif; fill: var(--soft) }
  .name { font: 600 15px ui-monospace, monospace; fill: var(--ink) }
  .title { font-size: 19px; fill: var(--ink) }
  .right { text-anchor: end }
  .arrow { fill: none; stroke-width: 1.6 }
""".strip("\n")
COLOURS = "abcd"


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A folder of the package, or ``cli.py``.

    Attributes:
        name: its name in the package.
        purpose: the first sentence of its docstring.
        rooms: names of the folders inside it.
    """

    name: str
    purpose: str
    rooms: tuple[str, ...]


@dataclass(frozen=True)
class Arrow:
    """An import from one folder to another; ``lane`` counts from the boxes to the right."""

    source: str
    target: str
    lane: int


def read_floors() -> list[list[str]]:
    """Folders of each layer, from the top; an optional layer that nobody built yet is no floor."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contract = next(item for item in config["tool"]["importlinter"]["contracts"] if item["type"] == "layers")
    floors = [[name.strip() for name in layer.split("|")] for layer in contract["layers"]]
    is_there = lambda name: (ROOT / name).is_dir() or (ROOT / f"{name}.py").is_file()  # noqa: E731
    built = [[name for name in floor if is_there(name)] for floor in floors]
    return [floor for floor in built if floor]


def read_folder(name: str) -> Folder:
    """What a folder says of itself."""
    folder = ROOT / name
    source = folder / "__init__.py" if folder.is_dir() else ROOT / f"{name}.py"
    docstring = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
    rooms = sorted(path.parent.name for path in folder.glob("*/__init__.py"))
    purpose = " ".join(docstring.partition("\n\n")[0].split()).partition(". ")[0].rstrip(".")
    return Folder(name=name, purpose=purpose, rooms=tuple(rooms))


def count_imports() -> Counter[tuple[str, str]]:
    """How many imports there are between any two folders: (importing, imported) → number."""
    graph = grimp.build_graph(PACKAGE, cache_dir=None)
    counted: Counter[tuple[str, str]] = Counter()
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            source, target = (f"{name}.".split(".")[1] for name in (module, imported))
            if source and target and source != target:
                counted[source, target] += 1
    return counted


def without_those_that_follow(edges: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The edges of an acyclic graph that no longer way from the same source to the same target replaces."""
    targets: dict[str, set[str]] = {}
    for source, target in edges:
        targets.setdefault(source, set()).add(target)

    def below(name: str) -> set[str]:
        return {name}.union(*(below(target) for target in targets.get(name, ())))

    return {
        (source, target)
        for source, target in edges
        if not any(target in below(other) for other in targets[source] - {target})
    }


def put_in_lanes(edges: set[tuple[str, str]], rows: dict[str, int]) -> list[Arrow]:
    """Give each edge the innermost lane in which it meets no other; short ones first."""
    taken: list[list[tuple[int, int]]] = []
    arrows = []
    for source, target in sorted(edges, key=lambda edge: (rows[edge[1]] - rows[edge[0]], rows[edge[0]], edge)):
        first, last = rows[source], rows[target]
        free = (lane for lane, spans in enumerate(taken) if all(last <= a or first >= b for a, b in spans))
        lane = next(free, len(taken))
        if lane == len(taken):
            taken.append([])
        taken[lane].append((first, last))
        arrows.append(Arrow(source, target, lane))
    return arrows


def shortened(text: str, longest: int) -> str:
    """The text, or as many of its words as there is room for."""
    if len(text) <= longest:
        return text
    return text[: longest - 1].rpartition(" ")[0].rstrip(",;:") + " …"


def draw_floors(floors: list[list[Folder]]) -> tuple[list[str], dict[str, int], int]:
    """Bands and boxes: (elements, each folder's upper edge, height of all)."""
    lines, tops, y = [], {}, TITLE_HEIGHT
    for floor in floors:
        height = 2 * FLOOR_PAD + len(floor) * BOX_HEIGHT + (len(floor) - 1) * BOX_GAP
        lines.append(
            f'<rect x="{MARGIN}" y="{y}" width="{WIDTH - 2 * MARGIN}" height="{height}" rx="8" fill="var(--floor)"/>'
        )
        for index, folder in enumerate(floor):
            tops[folder.name] = y + FLOOR_PAD + index * (BOX_HEIGHT + BOX_GAP)
            lines += draw_box(folder, tops[folder.name])
        y += height + FLOOR_GAP
    return lines, tops, y - FLOOR_GAP + MARGIN


def draw_box(folder: Folder, top: int) -> list[str]:
    """A box with name, rooms and purpose."""
    left = MARGIN + FLOOR_PAD
    name = f"{folder.name}/" if (ROOT / folder.name).is_dir() else f"{folder.name}.py"
    rooms = shortened(" ".join(f"{room}/" for room in folder.rooms), LONGEST_ROOMS)
    purpose = html.escape(shortened(folder.purpose, LONGEST_PURPOSE))
    return [
        f'<rect x="{left}" y="{top}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="5" fill="var(--box)" '
        'stroke="var(--edge)"/>',
        f'<text class="name" x="{left + 12}" y="{top + 19}">{name}</text>',
        f'<text x="{left + 130}" y="{top + 19}">{rooms}</text>',
        f'<text x="{left + 12}" y="{top + 38}">{purpose}</text>',
    ]


def draw_arrows(arrows: list[Arrow], tops: dict[str, int]) -> list[str]:
    """Each arrow out of its box, down its lane, and into the box that is imported."""
    leaving = {name: sorted(item.lane for item in arrows if item.source == name) for name in tops}
    lines = []
    for arrow in sorted(arrows, key=lambda item: (tops[item.source], item.lane)):
        edge = MARGIN + FLOOR_PAD + BOX_WIDTH
        lane = edge + (arrow.lane + 2) * LANE_GAP
        start = tops[arrow.source] + BOX_HEIGHT - 4 - SPREAD * leaving[arrow.source].index(arrow.lane)
        end = tops[arrow.target] + BOX_HEIGHT // 3
        colour = COLOURS[list(tops).index(arrow.source) % len(COLOURS)]
        lines.append(
            f'<path class="arrow" d="M{edge} {start}H{lane - 6}q6 0 6 6V{end - 6}q0 6 -6 6H{edge + 9}" '
            f'stroke="var(--{colour})"><title>{arrow.source} imports {arrow.target}</title></path>'
        )
        lines.append(f'<path d="M{edge + 1} {end}l10 -5v10z" fill="var(--{colour})"/>')
    return lines


def draw() -> str:
    """The image as SVG."""
    names = read_floors()
    rows = {name: row for row, name in enumerate(name for floor in names for name in floor)}
    edges = {edge for edge in count_imports() if set(edge) <= set(rows)}
    arrows = put_in_lanes(without_those_that_follow(edges), rows)
    boxes, tops, height = draw_floors([[read_folder(name) for name in floor] for floor in names])
    described = "; ".join(f"{item.source} imports {item.target}" for item in arrows)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="t d">',
        '<title id="t">The floors of lineproof</title>',
        f'<desc id="d">{described}.</desc>',
        f"<style>\n{STYLE}\n</style>",
        f'<rect width="{WIDTH}" height="{height}" fill="var(--page)"/>',
        f'<text class="title" x="{MARGIN}" y="32">The floors of lineproof: imports go down only</text>',
        f'<text x="{MARGIN}" y="52">An arrow leads to what a folder imports; arrows that follow from others are left '
        "out. Folders on one floor do not import each other.</text>",
        *boxes,
        *draw_arrows(arrows, tops),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Draw the image, or with --check say whether it is out of date."""
    image = draw()
    if "--check" not in sys.argv:
        IMAGE.write_text(image, encoding="utf-8")
        return 0
    if IMAGE.is_file() and IMAGE.read_text(encoding="utf-8") == image:
        return 0
    sys.stderr.write("docs/floors.svg is out of date; run python docs/draw_floors.py\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
