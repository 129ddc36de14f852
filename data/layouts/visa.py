"""The layout of VisA as released; its 1-class conversion is MVTec AD's layout and is read as that.

    ROOT/CATEGORY/Data/Images/{Normal,Anomaly}/NNN.JPG
    ROOT/CATEGORY/Data/Masks/Anomaly/NNN.png
    ROOT/split_csv/1cls.csv                          columns object, split, label, image, mask; paths from ROOT

The table says which normal images train and which test. Where it is missing, or names no image of the category,
every fifth normal image tests, as in plain folders, and that is a problem: such figures compare with no others.
Any pixel of a mask but 0 is marked: the values name the class of a defect.
Data set: Zou, Jeong, Pemula, Zhang and Dabeer, "SPot-the-Difference", ECCV 2022.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import final

from ...core.errors import BadInputError
from ..records import Problem, Sample, is_image, visible
from .layout import (
    MASKS_OF_GOOD,
    TEST_EVERY,
    Findings,
    Layout,
    defective_samples,
    folders_named,
    good_samples,
    held_out_samples,
    images_in,
    masks_in,
    name_unknown,
    pair_masks,
)
from .names import BAD_NAMES, GOOD_NAMES, is_good_name, spelled

_COLUMNS = ("object", "split", "label", "image", "mask")


def is_category(folder: Path) -> bool:
    """Whether ``folder`` is one category as released: ``Data/Images/Normal`` holds images."""
    goods = [good for images in _inside(folder, "images") for good in folders_named(images, GOOD_NAMES)]
    return any(is_image(entry) for good in goods for entry in visible(good))


def read(root: Path, findings: Findings) -> list[Sample]:
    """Read one category's folder by the table beside it, or by the rule of plain folders where there is none."""
    tops = _inside(root, "images")
    goods = [place for top in tops for place in folders_named(top, GOOD_NAMES)]
    bads = [place for top in tops for place in folders_named(top, BAD_NAMES)]
    for top in tops:
        name_unknown(top, [*goods, *bads], findings)
    for place in (place for top in _inside(root, "masks") for place in folders_named(top, GOOD_NAMES)):
        findings.problem(place, MASKS_OF_GOOD)
    name_unknown(root, folders_named(root, {"data"}), findings)
    normal = [image for place in goods for image in images_in(place, findings)]
    anomalous = {place: images_in(place, findings) for place in bads}
    table = _table(root)
    rows = list(_rows(table, root)) if table else []
    if rows:
        listed = _Listed(findings, {*normal, *(image for inside in anomalous.values() for image in inside)})
        return listed.samples(rows)
    findings.problems.append(Problem("../split_csv/1cls.csv", _no_split(table)))
    samples = held_out_samples(normal)
    for place, images in anomalous.items():
        tops = [inner for masks in _inside(root, "masks") for inner in folders_named(masks, {spelled(place.name)})]
        masks = [mask for top in tops for mask in masks_in(top, findings)]
        samples.extend(defective_samples(pair_masks(images, masks, findings), place.name))
    return samples


def _inside(root: Path, name: str) -> list[Path]:
    return [place for data in folders_named(root, {"data"}) for place in folders_named(data, {name})]


def _table(root: Path) -> Path | None:
    places = [entry for top in folders_named(root.parent, {"split_csv"}) for entry in visible(top)]
    return next((entry for entry in places if entry.name.lower() == "1cls.csv" and entry.is_file()), None)


def _no_split(table: Path | None) -> str:
    why = "names no image of this category" if table else "is not there"
    return f"{why}; every {TEST_EVERY}th normal image tests, and the figures compare with no published ones"


def _rows(table: Path, root: Path) -> Iterator[dict[str, str]]:
    """The rows of one category."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            names = {spelled(name): name for name in reader.fieldnames or ()}
            missing = [name for name in _COLUMNS if name not in names]
            if missing:
                raise BadInputError(
                    f"{table}: lacks the columns {', '.join(missing)}; expected {','.join(_COLUMNS)}. Copy the table "
                    "from the data set again."
                )
            for row in reader:
                cells = {name: (row[names[name]] or "").strip() for name in _COLUMNS}
                if cells["object"].casefold() == root.name.casefold():
                    yield cells
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInputError(
            f"{table}: cannot be read ({error}); expected the table of VisA's 1-class split. Copy it again."
        ) from error


@final
class _Listed:
    """The samples that a table names, each image once and only where folder and table agree."""

    def __init__(self, findings: Findings, images: set[Path]) -> None:
        self._findings = findings
        self._left = images
        self._seen = set[Path]()
        root = findings.root
        places = [place for top in _inside(root, "masks") for place in folders_named(top, BAD_NAMES)]
        self._masks = {mask for place in places for mask in visible(place) if is_image(mask)}
        self._seen_masks = set[Path]()

    def samples(self, rows: list[dict[str, str]]) -> list[Sample]:
        samples = [sample for row in rows for sample in self._sample(row)]
        for image in sorted(self._left - self._seen):
            self._findings.problem(image, "is not in split_csv/1cls.csv; ignored")
        for mask in sorted(self._masks - self._seen_masks):
            self._findings.problem(mask, "is a mask without an image")
        return samples

    def _sample(self, row: dict[str, str]) -> list[Sample]:
        # The table is trusted with the split, never with reading files from elsewhere: only listed images count.
        image = self._path(row["image"])
        if image not in self._left:
            self._say(row["image"], "is in split_csv/1cls.csv, but not among the images of the category; ignored")
            return []
        if image in self._seen:
            self._say(row["image"], "is in split_csv/1cls.csv more than once; the first row counts")
            return []
        self._seen.add(image)
        is_good = is_good_name(image.parent.name)
        split, label = row["split"].lower(), row["label"]
        if is_good_name(label) != is_good or (not is_good and spelled(label) not in BAD_NAMES):
            self._say(row["image"], f"is labelled {label!r} in split_csv/1cls.csv, its folder says otherwise; ignored")
            return []
        if split == "test" and not is_good:
            return defective_samples({image: self._mask(row)}, image.parent.name)
        if split not in ("train", "test") or not is_good:
            self._say(row["image"], f"is {label} and of split {row['split']!r} in split_csv/1cls.csv; ignored")
            return []
        return good_samples([image], "test" if split == "test" else "train")

    def _path(self, cell: str) -> Path:
        """The path that a cell names, whose first folder is the category's, in whatever case."""
        category, _, inside = cell.replace("\\", "/").partition("/")
        root = self._findings.root
        return root / inside if category.casefold() == root.name.casefold() else root.parent / category / inside

    def _mask(self, row: dict[str, str]) -> tuple[Path, ...]:
        mask = self._path(row["mask"])
        if mask in self._masks:
            self._seen_masks.add(mask)
            return (mask,)
        self._say(row["image"], f"has no mask: {row['mask']} is not there" if row["mask"] else "has no mask")
        return ()

    def _say(self, where: str, what: str) -> None:
        name = where.removeprefix(f"{self._findings.root.name}/")
        self._findings.problems.append(Problem(name, what))


LAYOUT = Layout(
    title="VisA layout",
    tree="Data/Images/{Normal,Anomaly}/*.JPG, Data/Masks/Anomaly/*.png, and ../split_csv/1cls.csv",
    is_category=is_category,
    read=read,
)
