"""Groups of scores that are read together, as the report has them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

MORE, LESS, AS_REAL, HALF, NONE = "more", "less", "as real images", "near 1/2", ""
"""What is good of a score."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Scores that are read together.

    Attributes:
        title: of the group.
        reading: one sentence that says how to read it.
        good: name of a score -> what is good.
        checked_by: name of a score -> the check of the gate that judges by it, or by what it sums
            up.
    """

    title: str
    reading: str
    good: Mapping[str, str]
    checked_by: Mapping[str, str] = field(default_factory=dict)
