"""What folders of good and of defective parts are called, compared without regard to case, width, hyphens or blanks."""

import re
import unicodedata

#: Folders of good parts; no folder of another name ever counts as one.
GOOD_NAMES = frozenset({"good", "ok", "okay", "normal"})
#: Folders of defective parts in a plain folder. In a test split every folder that is not good names a type of defect.
BAD_NAMES = frozenset(
    {
        "bad", "ng", "no_good", "not_good", "ko", "nok", "not_ok", "nio", "defect", "defects", "defective", "faulty",
        "reject", "rejected", "fail", "failed", "anomaly", "anomalies", "anomalous", "abnormal",
    }
)  # fmt: skip
#: Folders of masks; among folders of parts they hold no parts, whose pixels would be judged as images.
MASK_NAMES = frozenset({"masks", "mask", "ground_truth", "groundtruth", "gt"})
#: The good names as messages write them.
GOOD_WORDS = "good, ok, okay or normal"

# Names that probably mean good parts. They are reported and never used: to guess a label is to invent it.
_SOUNDS_GOOD = frozenset(
    {
        "accept", "accepted", "anomaly_free", "bon", "bueno", "buono", "clean", "conform", "conforming", "defect_free",
        "defectfree", "flawless", "golden", "gut", "healthy", "intact", "io", "i.o.", "i.o", "no_defect", "no_defects",
        "nominal", "non_defective", "nondefective", "pass", "passed", "pos", "positive", "reference", "良品", "合格",
        "正常", "양품", "정상",
    }
)  # fmt: skip
_GOOD_AND_MORE = re.compile(r"(?:good|okay|ok|normal)s?(?:[_.]|\d|$)")


def spelled(name: str) -> str:
    """``name`` in the one spelling that names are compared in: NFKC, case folded, ``_`` for blanks and hyphens."""
    return re.sub(r"[\s\-_]+", "_", unicodedata.normalize("NFKC", name).casefold().strip())


def is_good_name(name: str) -> bool:
    """Whether a folder of this name holds good parts."""
    return spelled(name) in GOOD_NAMES


def is_mask_name(name: str) -> bool:
    """Whether a folder of this name holds masks."""
    return spelled(name) in MASK_NAMES


def sounds_good(name: str) -> bool:
    """Whether a folder of this name may well hold good parts although it is not called by one of the good names."""
    plain = spelled(name)
    return plain not in GOOD_NAMES and (plain in _SOUNDS_GOOD or bool(_GOOD_AND_MORE.match(plain)))
