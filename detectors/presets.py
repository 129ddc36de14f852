"""Presets: settings of a detector under a name, each with its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

#: The preset of a training that names none.
PAPER = "paper"
REPO = "repo"
QUICK = "quick"


@final
@dataclass(frozen=True, kw_only=True)
class Preset:
    """Settings of a detector, beside the defaults of its configuration.

    Attributes:
        source: where the settings come from, as a sentence.
        settings: values by parameter.
        by_category: further values by parameter, for the category of a data set that they are meant for.
    """

    source: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    by_category: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def of_category(self, category: str) -> dict[str, Any]:
        """Return the values by parameter that are meant for a category alone; none where it is not listed."""
        return dict(self.by_category.get(category, {}))
