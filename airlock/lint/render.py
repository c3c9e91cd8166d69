"""Findings as text, JSON, SARIF and GitHub's annotations; rules as a list."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Iterator
from urllib.parse import quote

from airlock.lint.finding import Finding, Level, Outcome
from airlock.lint.rule import RULES, Rule

WIDTH = 96
_SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
_SARIF = {Level.INFO: "note", Level.WARNING: "warning", Level.ERROR: "error"}
_GITHUB = {Level.INFO: "notice", Level.WARNING: "warning", Level.ERROR: "error"}


def text(outcome: Outcome) -> str:
    """The findings as notes to read, and a last line with their number."""
    return "\n".join([*map(_note, outcome.findings), summary(outcome)])


def _note(finding: Finding) -> str:
    said = textwrap.wrap(finding.message, WIDTH, break_long_words=False, break_on_hyphens=False)
    parts = [
        f"{finding.file}:{finding.line}  {finding.level.word}  {finding.rule}",
        *(f"  {line}" for line in said),
        *(f"    {line}" for line in finding.remedy.split("\n")),
    ]
    if finding.source:
        parts.append(f"  {finding.source}")
    return "\n".join(parts) + "\n"


def summary(outcome: Outcome) -> str:
    """Such as ``3 files, 2 findings (1 error, 1 warning), 1 allowed.``"""
    counts = Counter(finding.level for finding in outcome.findings)
    levels = ", ".join(_many(counts[level], level.word) for level in sorted(counts, reverse=True))
    files = outcome.files - outcome.history
    parts = [_many(files, "file"), _many(len(outcome.findings), "finding")]
    parts[1] += f" ({levels})" if levels else ""
    if outcome.allowed:
        parts.append(f"{len(outcome.allowed)} allowed")
    if outcome.history:
        parts.append(f"{_many(outcome.history, 'older file')} not judged")
    return ", ".join(parts) + "."


def _many(count: int, what: str) -> str:
    plural = what if what == Level.INFO.word else f"{what}s"
    return f"{count} {what if count == 1 else plural}"


def as_json(outcome: Outcome) -> str:
    """A list of findings: file, line, rule, level, message and remedy."""
    found = [finding.to_dict() for finding in outcome.findings]
    return json.dumps(found, indent=2, ensure_ascii=False)


def github(outcome: Outcome) -> str:
    """One workflow command for each finding, which GitHub shows beside the line."""
    return "\n".join(map(_annotation, outcome.findings))


def _annotation(finding: Finding) -> str:
    body = "\n".join([finding.message, finding.remedy, finding.source]).rstrip()
    return (
        f"::{_GITHUB[finding.level]} file={_property(finding.file)},line={finding.line},"
        f"title={_property(finding.rule)}::{_data(body)}"
    )


def _data(value: str) -> str:
    return value.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(value: str) -> str:
    return _data(value).replace(":", "%3A").replace(",", "%2C")


# ---------------------------------------------------------------- SARIF


def sarif(outcome: Outcome) -> str:
    """A SARIF 2.1.0 log with one run; what is allowed is in it, suppressed with its reason."""
    rules = list(RULES.values())
    places = {each.id: number for number, each in enumerate(rules)}
    found = [*outcome.findings, *outcome.allowed]
    log = {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": {"name": "airlock", "rules": [_sarif_rule(r) for r in rules]}},
                "columnKind": "unicodeCodePoints",
                "results": [_result(each, places[each.rule]) for each in found],
            }
        ],
    }
    return json.dumps(log, indent=2, ensure_ascii=False)


def _sarif_rule(rule: Rule) -> dict[str, object]:
    described: dict[str, object] = {
        "id": rule.id,
        "shortDescription": {"text": rule.summary},
        "defaultConfiguration": {"level": _SARIF[rule.level]},
        "properties": {"tags": [rule.group]},
    }
    return {**described, "helpUri": rule.source} if rule.source else described


def _result(finding: Finding, place: int) -> dict[str, object]:
    at = {
        "artifactLocation": {"uri": quote(finding.file)},
        "region": {"startLine": finding.line},
    }
    result: dict[str, object] = {
        "ruleId": finding.rule,
        "ruleIndex": place,
        "level": _SARIF[finding.level],
        "message": {
            "text": f"{finding.message}\n\n{finding.remedy}",
            "markdown": f"{finding.message}\n\n```sql\n{finding.remedy}\n```",
        },
        "locations": [{"physicalLocation": at}],
    }
    if finding.allowed:
        result["suppressions"] = [{"kind": "inSource", "justification": finding.allowed}]
    return result


# ---------------------------------------------------------------- rules


def rules() -> str:
    """All rules by group, each with its level and what it finds."""
    return "\n".join(_listed())


def _listed() -> Iterator[str]:
    widest = max(map(len, RULES))
    for group in dict.fromkeys(each.group for each in RULES.values()):
        yield f"{group}"
        for each in RULES.values():
            if each.group == group:
                yield f"  {each.id:{widest}}  {each.level.word:7}  {each.summary}"


def rules_as_json() -> str:
    found = [
        {"rule": each.id, "level": each.level.word, "summary": each.summary, "source": each.source}
        for each in RULES.values()
    ]
    return json.dumps(found, indent=2, ensure_ascii=False)
