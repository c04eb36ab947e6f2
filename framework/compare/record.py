"""The record of a comparison, `comparison.json`: what was done so far, arm by arm."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from framework.compare.arms import Equal
from framework.errors import StudyError
from framework.files import write_text
from framework.study import versions


@dataclass
class ComparisonRecord:
    """The state of a comparison. `arms` has an entry for each arm and seed that is done."""

    status: str  # "new", "done", "failed" or "interrupted"
    study: str  # its hash
    equal: Equal
    seeds: int
    steps: int | None  # of every arm, if they are equal
    # Seed -> the seconds of simulating, and how many simulations were completed in them.
    simulating: dict[str, list[float]] = field(default_factory=dict)
    arms: list[dict[str, Any]] = field(default_factory=list)
    streams: int = versions.STREAMS  # the version of random streams that its arms draw by

    @classmethod
    def read(cls, path: Path) -> "ComparisonRecord":
        """Read the record of a comparison to continue.

        Raises StudyError if it is damaged, or if the comparison is not done and its random streams
        are of another version: the arms that are left would not draw as those that are done.
        """
        try:
            record = cls(**{"streams": 1, **json.loads(path.read_text())})
        except (OSError, ValueError, TypeError):
            raise StudyError(
                f"{path} is damaged: start the comparison anew with millstream compare"
            ) from None
        if record.status != "done" and record.streams != versions.STREAMS:
            raise StudyError(
                f"{path} was begun with version {record.streams} of the random streams and priors, "
                f"but this Millstream draws by version {versions.STREAMS}: the comparison cannot "
                "go on; start it anew with millstream compare, or use the version that began it"
            )
        return record

    def write(self, path: Path) -> None:
        """Write the record, whole or not at all. Raises WriteError."""
        write_text(path, json.dumps(asdict(self), indent=2) + "\n")

    def is_older(self) -> bool:
        """Return whether some arms were scored before errors left out the time that is given."""
        return any("last_time" not in arm.get("validation", {"last_time": 0}) for arm in self.arms)

    def has(self, arm: str, seed: int) -> bool:
        """Return whether this arm is done with this seed."""
        return any(item["name"] == arm and item["seed"] == seed for item in self.arms)
