"""What a data set is: samples with a label, a split and masks, and the problems seen while reading the folders."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

from ..core.errors import BadInputError
from ..core.spec import Reads
from ..core.table import first_few
from .decoding.decode import IMAGE_SUFFIXES
from .files import CALIBRATION, files_read
from .layouts.names import GOOD_WORDS

Split = Literal["train", "validation", "test"]

_LITTER = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir"})
_SPLITS: dict[Split, str] = {"train": "training", "validation": "validation", "test": "test"}
_MOST_TYPES = 8


@final
@dataclass(frozen=True, kw_only=True)
class Sample:
    """One image of a data set.

    Attributes:
        path: the image file.
        label: 0 good, 1 defective.
        defect: ``"good"`` or the type of defect, as the data set's folder is called.
        mask_paths: the ground truth masks, whose union marks the defects; empty where there is none. Of a good
            image nothing is marked, whatever they hold; ``check_masks`` names such masks and takes them away.
        split: ``"train"``, ``"validation"`` or ``"test"``. Training and validation images are good.
    """

    path: Path
    label: Literal[0, 1]
    defect: str
    mask_paths: tuple[Path, ...] = ()
    split: Split


@final
@dataclass(frozen=True)
class Problem:
    """Something missing, left over, unknown or contradictory.

    Attributes:
        where: the file or folder, relative to the data set's root.
        what: the rest of the sentence, without its full stop.
        kind: what problems of this kind have in common; empty where that is ``what``.
    """

    where: str
    what: str
    kind: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}."


@final
@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One category: images of one kind of part or surface.

    Attributes:
        name: the layout in words, ``"MVTec AD layout"``.
        category: the kind of part, which is the name of its folder.
        layout: key of ``LAYOUTS``, ``"mvtec-ad"``.
        root: the category's folder, absolute.
        samples: all images, ordered by split (train, validation, test) and then by relative path.
        noticed: what is missing, left over, unknown or contradictory under ``root``.
        remarks: what was assumed in reading and is no problem, one sentence each.
    """

    name: str
    category: str
    layout: str
    root: Path
    samples: tuple[Sample, ...]
    noticed: tuple[Problem, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def train(self) -> tuple[Sample, ...]:
        """The good images a detector learns from."""
        return self._of("train")

    @property
    def validation(self) -> tuple[Sample, ...]:
        """Good images held out from training, for thresholds; empty where the layout has none."""
        return self._of("validation")

    @property
    def test(self) -> tuple[Sample, ...]:
        """Good and defective images that nothing was fitted to."""
        return self._of("test")

    def _of(self, split: Split) -> tuple[Sample, ...]:
        return tuple(sample for sample in self.samples if sample.split == split)

    @property
    def problems(self) -> tuple[str, ...]:
        """What the set lacks as a whole, then everything noticed, one sentence each; empty where all is well."""
        return (*self.lacking, *map(str, self.noticed))

    @property
    def lacking(self) -> tuple[str, ...]:
        """That there is no good test image, no defective one, or none to train on; empty where there are all."""
        num_good, num_bad = (sum(sample.label == label for sample in self.test) for label in (0, 1))
        sentences = []
        if not num_good:
            defective = _folders(self.test, self.root, label=1)
            listed = f"Taken as defective: {', '.join(defective)}. " if defective else ""
            sentences.append(
                f"No good test image. {listed}Folders of good parts are called {GOOD_WORDS}. How well good and "
                "defective parts are told apart cannot be measured."
            )
        if not num_bad:
            sentences.append("No defective test image. Whether defects are found cannot be measured.")
        if not self.train:
            sentences.append(f"No training image. Folders of good parts are called {GOOD_WORDS}.")
        return tuple(sentences)

    @property
    def notes(self) -> tuple[str, ...]:
        """Which folders hold the good images of each split, and the remarks, one sentence each."""
        sentences = []
        for split, word in _SPLITS.items():
            if folders := _folders(self._of(split), self.root, label=0):
                holds = "holds" if len(folders) == 1 else "hold"
                sentences.append(f"{' and '.join(folders)} {holds} the good {word} images.")
        return (*sentences, *self.remarks)

    def summary_lines(self, *, most_names: int = 3) -> list[str]:
        """The set in brief, for people: what there is, then what it lacks, remarks, and problems a line per kind.

        Args:
            most_names: how many files or folders of each kind of problem are named; the others are counted.

        Returns:
            Lines without a line break. The first stands alone: category, counts, layout and the folders of good parts.
        """
        kinds: dict[str, list[Problem]] = {}
        for problem in self.noticed:
            kinds.setdefault(problem.kind or problem.what, []).append(problem)
        brief = []
        for kind, problems in kinds.items():
            if len(problems) == 1:
                brief.append(str(problems[0]))
                continue
            places = first_few([problem.where for problem in problems], num=most_names)
            brief.append(f"{kind} ({len(problems)}): {places}.")
        lines = [self._head(), *self.lacking, *self.remarks, *brief]
        return [" ".join(line.splitlines()) for line in lines]

    def _head(self) -> str:
        good = [sample for sample in self.test if sample.label == 0]
        bad = [sample for sample in self.test if sample.label == 1]
        validation = f", {len(self.validation)} validation" if self.validation else ""
        types = [f"{defect} {number}" for defect, number in sorted(Counter(s.defect for s in bad).items())]
        more = f", and {len(types) - _MOST_TYPES} more types" if len(types) > _MOST_TYPES else ""
        listed = f" ({', '.join(types[:_MOST_TYPES])}{more})" if types else ""
        masks = f", {sum(bool(sample.mask_paths) for sample in bad)} with masks" if bad else ""
        folders = ", ".join(_folders(good, self.root, label=0)) or "no folder of the test split"
        return (
            f"{self.category}: {len(self.train) or 'NO'} training{validation}, {len(good) or 'NO'} good and "
            f"{len(bad) or 'NO'} defective test images{listed}{masks}; {self.name}; good = {folders}"
        )

    def fingerprint(self, reads: Reads = "image") -> str:
        """Identify the training split: the same names and bytes give the same fingerprint on every machine.

        Args:
            reads: what the detector reads of each sample.

        Returns:
            sha256 in hexadecimal over, for each training image in order, its path relative to ``root`` (UTF-8, ``/``
            between folders) and its bytes, each preceded by its length as 8 bytes, big endian. Of scans the bytes are
            those of the cloud and, where they are read, of the colours, a file that is absent being an empty one; last
            come those of the calibration, where there is one: it moves the copies that a detector learns from.

        Raises:
            BadInputError: there is no training image.
        """
        if not self.train:
            raise BadInputError(
                f"{self.root}: there is no training image to take a fingerprint of; expected at least one."
            )
        digest = hashlib.sha256()
        for sample in self.train:
            name = relative(sample.path, self.root).encode("utf-8", "surrogateescape")
            for part in (name, *(_bytes(file, reads) for file in files_read(sample.path, reads))):
                digest.update(len(part).to_bytes(8, "big"))
                digest.update(part)
        calibration = self.root / CALIBRATION
        if reads != "image" and calibration.is_file():
            digest.update(calibration.read_bytes())
        return digest.hexdigest()


def _bytes(file: Path, reads: Reads) -> bytes:
    """A file's bytes; none of a part of a scan that is absent, which whoever reads the scan reports."""
    return file.read_bytes() if reads == "image" or file.is_file() else b""


def visible(folder: Path) -> list[Path]:
    """Entries of ``folder`` by name, without what file managers leave behind; empty where it is no folder.

    Raises:
        BadInputError: the folder cannot be listed.
    """
    try:
        if not folder.is_dir():
            return []
        entries = [e for e in folder.iterdir() if not e.name.startswith(".") and e.name.lower() not in _LITTER]
    except OSError as error:
        raise BadInputError(
            f"{folder}: the folder cannot be listed ({error.strerror}); expected one that may be read. Check its "
            "permissions, or that its drive is there."
        ) from error
    return sorted(entries, key=lambda entry: entry.name)


def subfolders(folder: Path) -> list[Path]:
    """Visible folders directly under ``folder``, by name."""
    return [entry for entry in visible(folder) if entry.is_dir()]


def is_image(path: Path) -> bool:
    """Whether the name is that of an image file."""
    return path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()


def relative(path: Path, root: Path) -> str:
    """``path`` as seen from ``root``, with ``/`` between folders."""
    return path.relative_to(root).as_posix()


def ordered(samples: Iterable[Sample], root: Path) -> tuple[Sample, ...]:
    """Samples by split, then by relative path."""
    rank = {"train": 0, "validation": 1, "test": 2}
    return tuple(sorted(samples, key=lambda sample: (rank[sample.split], relative(sample.path, root))))


def _folders(samples: Iterable[Sample], root: Path, *, label: Literal[0, 1]) -> list[str]:
    """Folders with samples of this label, relative to ``root``, in the samples' order."""
    return list(dict.fromkeys(relative(s.path.parent, root) for s in samples if s.label == label))
