"""The build database filled from a clone: structure, masked rows, indexes, and the proof."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from airlock import dsn, ledger, masked_copy, masking, migration, plan, postgres
from airlock.errors import Refused
from airlock.masked_copy import CheckResult
from airlock.masking import TableMask
from airlock.migration import Migration
from airlock.plan import AppliedMigration
from airlock.refresh import databases, structure
from airlock.replacement import MaskedCopy, Replacement
from airlock.settings import RefreshSettings, Target
from airlock.snapshot import Clone

log = logging.getLogger(__name__)

_MOST_TOLD = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Filling:
    """One clone, and the empty database that becomes its masked copy."""

    target: Target
    settings: RefreshSettings
    clone: Clone
    names: Replacement
    folder: Path

    @property
    def clone_url(self) -> str:
        # Row security and missing grants hide nothing from the superuser.
        return self.clone.superuser_url or self.clone.url

    @property
    def build_url(self) -> str:
        return databases.url_of(self.target, self.names.build)

    async def migrations(self) -> tuple[tuple[AppliedMigration, ...], tuple[Migration, ...]]:
        """What stands in the clone, and what this checkout has beyond it."""
        async with postgres.connect(self.clone_url, purpose="refresh") as conn:
            applied = await ledger.applied(conn)
        if half := [row.label for row in applied if row.state == "started"]:
            raise Refused(
                f"In the snapshot {', '.join(half)} is applied half-way. Undo that deploy of "
                f"{self.names.source}, then refresh with a fresh snapshot."
            )
        files = migration.read_folder(self.target.migrations_dir)
        return applied, plan.pending(files, applied)

    async def masks(self) -> tuple[TableMask, ...]:
        """A mask for every column. Raises Refused naming the ones without a rule."""
        async with (
            postgres.connect(
                self.clone_url, purpose="refresh", limit_s=postgres.CATALOGUE_S
            ) as clone,
            postgres.connect(
                self.build_url, purpose="refresh", limit_s=postgres.CATALOGUE_S
            ) as build,
        ):
            await structure.refuse_lacking(clone, build)
            # Also before the check, which comes when the rows are there.
            await masked_copy.require_one_hash(clone, build)
            tables = await masked_copy.read_tables(clone)
        rules = masking.read_rules(self.target)
        for name in masking.absent(rules, tables):
            log.warning("Not in the snapshot, so not masked: %s", name)
        return masking.classify(rules, tables)

    async def fill(self, masks: tuple[TableMask, ...], key: str) -> MaskedCopy:
        """Everything but what was not masked. Raises Refused when a check finds something."""
        began, jobs = time.monotonic(), self.settings.jobs
        async with postgres.connect(self.clone_url, purpose="refresh") as conn:
            major = conn.get_server_version().major
            left_behind = await structure.left_behind(conn)
        async with postgres.connect(self.build_url, purpose="refresh") as conn:
            role = await conn.fetchval("SELECT current_user")
        made = await structure.dump(
            self.clone_url,
            self.folder,
            major=major,
            role=role,
            tls=dsn.needs_tls(dsn.resolve(self.build_url, os.environ)),
        )
        objects = await structure.objects(made)
        structure.refuse_planted(objects, self.settings.sentinels)
        async with postgres.connect(self.clone_url, purpose="refresh") as conn:
            telling = await structure.telling(conn, objects)
        for each in telling:
            log.warning("Carried over as it is: %s", each)
        await self._restore(made, "pre-data", jobs=1)
        rows, checked = await self._rows(masks, key)
        await self._restore(made, "post-data", jobs=jobs)
        await self._restore(made, "row security", jobs=1)
        log.info("Indexes and constraints are made")
        await masked_copy.search_views(build_url=self.build_url, sentinels=self.settings.sentinels)
        await self._settle()
        return MaskedCopy(
            tables=len(rows.tables),
            rows=rows.rows,
            masked_columns=len(checked.compared) + len(checked.not_compared),
            checks=(*_sentences(checked), *_of_structure(len(objects), telling)),
            seconds=time.monotonic() - began,
            left_behind=left_behind,
        )

    async def _rows(
        self, masks: tuple[TableMask, ...], key: str
    ) -> tuple[masked_copy.CopyResult, CheckResult]:
        """The masked rows, and the proof: what is wrong is said before hours of indexes."""
        clone_url, build_url, jobs = self.clone_url, self.build_url, self.settings.jobs
        rows = await masked_copy.copy(
            masks, clone_url=clone_url, build_url=build_url, key=key, jobs=jobs
        )
        await masked_copy.copy_sequences(clone_url=clone_url, build_url=build_url)
        log.info("The rows are there; checking them")
        sentinels = self.settings.sentinels
        return rows, await masked_copy.check(
            masks, clone_url=clone_url, build_url=build_url, sentinels=sentinels, jobs=jobs
        )

    async def _restore(
        self, made: structure.Structure, section: structure.Section, *, jobs: int
    ) -> None:
        await structure.restore(
            made, section, url=self.build_url, database=self.names.build, jobs=jobs
        )

    async def _settle(self) -> None:
        """The same schema as the clone's, and statistics."""
        async with (
            postgres.connect(self.clone_url, purpose="refresh", limit_s=postgres.TABLES_S) as clone,
            postgres.connect(self.build_url, purpose="refresh", limit_s=postgres.TABLES_S) as build,
        ):
            await structure.check_same(clone, build)
            with postgres.translated("analysing the copy"):
                # The planner knows nothing of new rows.
                await build.execute("ANALYZE")


def _sentences(checked: CheckResult) -> tuple[str, ...]:
    return (
        f"{checked.rows:,} rows counted on both sides",
        f"{len(checked.compared)} masked columns hold no original value",
        *(f"not compared: {each}" for each in checked.not_compared),
        f"{len(checked.searched)} kept columns searched for addresses, phone numbers and accounts",
        f"{checked.sentinels} planted values are gone",
    )


def _of_structure(number: int, telling: Sequence[str]) -> tuple[str, ...]:
    """What was found in the structure, for a person to look at: no rule masks it."""
    searched = f"the SQL of {number} objects searched for addresses, phone numbers and accounts"
    more = [f"and {len(telling) - _MOST_TOLD} more"] if len(telling) > _MOST_TOLD else []
    shown = [f"look at {each}" for each in telling[:_MOST_TOLD]]
    return (searched, *shown, *more)
