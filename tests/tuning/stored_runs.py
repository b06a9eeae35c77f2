"""An MLflow store in SQLite, read with plain SQL."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class StoredRun:
    """What the store holds of one run.

    Attributes:
        run_id: MLflow's.
        status: RUNNING, FINISHED, FAILED or KILLED.
        tags: by name.
        params: by name.
        steps: metric -> its steps in the order in which they were written, doubles included.
        artifacts: folder of its artifacts.
    """

    run_id: str
    status: str
    tags: dict[str, str]
    params: dict[str, str]
    steps: dict[str, list[int]]
    artifacts: Path

    @property
    def grid_steps(self) -> list[int]:
        """Steps of its sample grids."""
        images = (self.artifacts / "images").glob("samples+step+*.png")
        return sorted(int(path.name.split("+")[2]) for path in images)


def stored_runs(database: Path, *, kind: str) -> list[StoredRun]:
    """The runs with `gan.kind` = `kind`, by `gan.trial`."""
    with closing(sqlite3.connect(database)) as connection:

        def rows(sql: str, *values: Any) -> list[Any]:
            return connection.execute(sql, values).fetchall()

        runs = []
        for run_id, status, uri in rows("SELECT run_uuid, status, artifact_uri FROM runs"):
            steps: dict[str, list[int]] = {}
            metrics = "SELECT key, step FROM metrics WHERE run_uuid = ? ORDER BY rowid"
            for key, step in rows(metrics, run_id):
                steps.setdefault(key, []).append(step)
            run = StoredRun(
                run_id=run_id,
                status=status,
                tags=dict(rows("SELECT key, value FROM tags WHERE run_uuid = ?", run_id)),
                params=dict(rows("SELECT key, value FROM params WHERE run_uuid = ?", run_id)),
                steps=steps,
                artifacts=Path(uri),
            )
            if run.tags.get("gan.kind") == kind:
                runs.append(run)
    return sorted(runs, key=lambda run: int(run.tags.get("gan.trial", 0)))
