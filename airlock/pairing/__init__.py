"""Releases of the service on schemas of the clone: which pairs work, and which the change breaks.

A deploy makes pairs that nobody planned: between the apply and the restart the running release
meets the new schema, and in a rollback the new release meets the old one. Here each is started
against the clone, and asked what the health check will ask. docs/decisions/0019-mixed-releases.md
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from airlock.errors import Refused
from airlock.request import Gate
from airlock.service import Instance, Release

Which = Literal["running", "new", "running and new"]
# Before the plan; after its expand, where it has a contract too; after all of it.
Schema = Literal["before", "expanded", "after"]
Verdict = Literal["works", "fails", "not proved"]


class NotTried(Exception):
    """Why no release can be started against the clone. Nothing is wrong with the change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """Who may be tried. not_tried: why nobody is."""

    running: Instance | None = None
    new: Release | None = None
    skip: tuple[Gate, ...] = ()
    not_tried: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One release to be started. name: what people know it by."""

    which: Which
    release: Release
    name: str

    def __str__(self) -> str:
        return f"the {self.which} release {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One question and its answer, as it may be shown. ok: None means that none came."""

    name: str
    ok: bool | None
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One release on one schema of the clone.

    ready_s: from its start to its first good answer; None: it did not come up.
    failure: why it did not come up, or went down.
    log_error: the first of more error lines in its log than are tolerated.
    is_connected: whether it has asked the clone anything; None where that cannot be seen.
    """

    which: Which
    release: str
    schema: Schema
    ready_s: float | None = None
    endpoints: tuple[Endpoint, ...] = ()
    failure: str = ""
    log_error: str = ""
    is_connected: bool | None = None
    verdict: Verdict = "not proved"

    @property
    def faults(self) -> Mapping[str, str]:
        """What was not as it should be, by what it is about."""
        found = {"start": self.failure} if self.failure else {}
        found |= {
            each.name: f"{each.name} answered {each.detail}"
            for each in self.endpoints
            if not each.ok
        }
        if self.log_error:
            found["log"] = f"its log has an error: {self.log_error}"
        if self.is_connected is False and not self.failure:
            found["database"] = "it never asked the clone anything"
        return found

    @property
    def sentence(self) -> str:
        """The pair in words, for reports and questions."""
        said = {
            "before": "on the schema from before",
            "expanded": "on the schema after the expand",
            "after": "on the new schema",
        }[self.schema]
        seen = [f"ready in {self.ready_s:.1f} s"] if self.ready_s is not None else []
        seen += [f"{each.name} {each.detail}" for each in self.endpoints if each.ok]
        seen += self.faults.values()
        return f"the {self.which} release {self.release} {said}: {', '.join([self.verdict, *seen])}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """All pairs of one rehearsal. not_tried: why there are none, or not all."""

    pairs: tuple[Pair, ...] = ()
    not_tried: str = ""

    def met(self, which: Which) -> Pair | None:
        """How that release was on the schemas that the plan brings it to; the worst of them."""
        both: Which = "running and new"
        found = [e for e in self.pairs if e.which in (which, both) and e.schema != "before"]
        return min(found, key=lambda each: each.verdict == "works", default=None)

    @property
    def sentences(self) -> tuple[str, ...]:
        """For reports and questions: each pair, and what was left out."""
        which = "not every release was tried" if self.pairs else "no release was tried"
        left_out = (f"{which}: {self.not_tried}",) if self.not_tried else ()
        return (*(each.sentence for each in self.pairs), *left_out)


def candidates(cast: Cast) -> Iterator[Candidate]:
    """The releases to start; one, where both are the same folder."""
    running = Release.of(cast.running) if cast.running else None
    if running and cast.new and running.directory.resolve() == cast.new.directory.resolve():
        # What the running one was started from may have changed since; nobody can start that.
        yield Candidate(which="running and new", release=cast.new, name=cast.new.name)
        return
    if cast.running and running and running.directory.is_dir():
        yield Candidate(which="running", release=running, name=cast.running.release)
    if cast.new:
        yield Candidate(which="new", release=cast.new, name=cast.new.name)


def needs_baseline(pairs: Iterable[Pair]) -> bool:
    """Whether something failed that may have nothing to do with the change."""
    return any(each.faults for each in pairs)


def judged(pairs: Collection[Pair], versions: str, *, changes: bool) -> tuple[Pair, ...]:
    """The pairs with their verdicts.

    What the running release cannot do on the schema from before either is not the change's fault:
    something is missing here that production has.
    changes: whether there are migrations; without them one schema is all there is.
    Raises Refused naming a release that the change breaks, or that does not work.
    """
    known = next((each for each in pairs if _is_baseline(each, changes=changes)), None)
    made: list[Pair] = []
    for each in pairs:
        blamed = _blamed(each, known)
        if blamed and each.schema != "before":
            raise Refused(_said(each, blamed, versions))
        on_old = each.schema == "before" and each is not known
        fails = "fails" if on_old and blamed else "not proved"
        made.append(replace(each, verdict=fails if each.faults else "works"))
    return tuple(made)


def _is_baseline(pair: Pair, *, changes: bool) -> bool:
    return pair.which != "new" and (pair.schema == "before" or not changes)


def _blamed(pair: Pair, known: Pair | None) -> list[str]:
    if known is None or "start" in known.faults or "database" in known.faults:
        return []
    return [said for about, said in pair.faults.items() if about not in known.faults]


def _said(pair: Pair, blamed: list[str], versions: str) -> str:
    schema = f"the schema after {versions}" if versions else "production's schema"
    if pair.schema == "expanded":
        schema = f"the schema after the expand of {versions}"
    found = f"On the clone, on {schema}, the {pair.which} release {pair.release} fails: "
    found += f"{'; '.join(blamed)}. "
    if pair.which == "new":
        return found + (
            "What runs now works there, so this is the release. It would fail its health check. "
            "Mend it, and deploy again; production is untouched."
        )
    return found + (
        "On the schema from before it does not. In production it would serve like that between "
        "apply and restart, and in a rollback. Expand and contract: bring the new shape beside the "
        "old one now, and take the old one away in a deploy after this one (-- Phase: contract). "
        "Production is untouched."
    )
