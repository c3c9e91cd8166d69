"""What is said at the end of each act and of the demo."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from airlock import html, report
from airlock.client.felt import Felt, shown_ms
from airlock.report import DeployReport
from examples.ma_tracker.demo import acts, show, stage
from examples.ma_tracker.demo.acts import Played
from examples.ma_tracker.demo.stage import ROOT, Stage
from flows.runtime import how_to_open

MESSAGE_LINES = 12


def act(console: Console, played: Played) -> None:
    """The outcome, what the ledger knows of it, the alert, and what was wrong."""
    console.print()
    good = played.outcome == "Deployed"
    show.said(console, acts.headline(played), style="bold green" if good else "bold yellow")
    if played.report is not None:
        for line in _facts(played.report):
            show.said(console, line)
    failure = played.report.deploy.failure if played.report else None
    if failure and not played.alerts:
        show.said(console, _shortened(failure), style="dim")
    for text in played.alerts:  # they carry the failure
        show.alert(console, text)
    for line in played.wrong:
        show.said(console, f"Not as it should be: {line}", style="bold red")


def _facts(found: DeployReport) -> list[str]:
    lines: list[str] = []
    snapshot, rehearsal, restart = found.snapshot, found.rehearsal, found.restart
    if snapshot:
        size = f"{snapshot.size_bytes / 2**20:,.0f} MiB in {snapshot.seconds:.1f} s"
        lines.append(f"Backup      {snapshot.provider}, {size}")
    if rehearsal:
        lines.append(f"Rehearsal   backup restored in {rehearsal.restore_seconds:.1f} s")
        lines.append(f"Rollback    {rehearsal.rollback_sentence}")
        lines += [f"Clone       {said}" for said in rehearsal.releases.sentences]
    if restart and found.deploy.state == "succeeded":
        lines.append(f"Restart     {restart.method}, longest gap {restart.gap_s * 1000:.0f} ms")
    if found.felt:
        lines.append(f"Clients     {found.felt.sentence}")
    return lines


def _shortened(text: str) -> str:
    lines = text.strip().splitlines()
    more = [f"… {len(lines) - MESSAGE_LINES} more lines"] if len(lines) > MESSAGE_LINES else []
    return "\n".join(lines[:MESSAGE_LINES] + more)


def keep_report(number: int, played: Played) -> None:
    """The report that is also an artifact of the run, as files that outlive the server."""
    if played.report is not None:
        path = stage.REPORTS / f"{number}-{played.act.title.lower().replace(' ', '-')}.md"
        path.write_text(report.markdown(played.report), encoding="utf-8")
        html.write(path.with_suffix(".html"), html.page(played.report))


def table(console: Console, all_played: Sequence[Played]) -> None:
    """Act by act: what was expected and what came, seconds per step, what the clients saw."""
    seconds = [_seconds(played) for played in all_played]
    steps = dict.fromkeys(name for each in seconds for name in each)
    rows = [
        ["expected", *(p.act.outcome for p in all_played)],
        ["outcome", *(_outcome(p) for p in all_played)],
        ["production", *(_production(p) for p in all_played)],
        ["alert", *("delivered" if p.alerts else "none" for p in all_played)],
        [],
        *([name, *(_s(each.get(name)) for each in seconds)] for name in steps),
        ["whole run", *(_s(p.seconds) for p in all_played)],
        [],
        ["probe: requests", *(_felt(p, lambda felt: f"{felt.requests:,}") for p in all_played)],
        ["probe: failed", *(_felt(p, lambda felt: _failed(felt.failed)) for p in all_played)],
        ["probe: longest", *(_felt(p, _longest) for p in all_played)],
        [],
        ["requests sent", *(f"{p.traffic.sent}" for p in all_played)],
        ["requests failed", *(_failed(p.traffic.failed) for p in all_played)],
        ["longest stall", *(_s(_stall(p)) for p in all_played)],
        ["rows written, lost", *(f"{len(p.traffic.writes)}, {len(p.lost)}" for p in all_played)],
    ]
    console.print()
    console.print(show.table("The three acts", ["", *(p.act.title for p in all_played)], rows))
    failures = [failure for played in all_played for failure in played.traffic.failures]
    for failure in failures[:3]:
        where = f"{failure.method} {failure.path} ({failure.client} connection)"
        show.said(console, f"Failed request: {where}: {failure.error}", style="yellow")


def _seconds(played: Played) -> dict[str, float | None]:
    found = played.report.steps if played.report else ()
    return {step.step: step.seconds for step in found}


def _outcome(played: Played) -> Text:
    if played.wrong:
        return Text(f"✗ {played.outcome}", style="bold red")
    return Text(f"✓ {played.outcome}", style="green")


def _production(played: Played) -> str:
    health = played.after.health
    version = health.get("schema_version")
    schema = f"{version:03d}" if isinstance(version, int) else "no schema version"
    return f"{schema}, release {health.get('release', '?')}"


def _felt(played: Played, say: Callable[[Felt], str | Text]) -> str | Text:
    felt = played.report.felt if played.report else None
    return say(felt) if felt and felt.requests else "–"


def _longest(felt: Felt) -> str:
    return shown_ms(felt.longest.ms) if felt.longest else "–"


def _failed(count: int) -> Text:
    return Text(str(count), style="yellow" if count else "green")


def _stall(played: Played) -> float:
    return max(played.traffic.longest_read_s, played.traffic.longest_write_s)


def _s(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds:.2f} s"


# ---------------------------------------------------------------- what to do next


def shown(path: Path) -> str:
    """A path as one would type it in the checkout."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def next_steps(console: Console) -> None:
    """What there is to look at when nothing runs any more."""
    lines(
        console,
        ("Reports", f"{shown(stage.REPORTS)}/*.html, as they are among Prefect's artifacts"),
        ("Prefect UI", f"AIRLOCK_CONFIG={shown(stage.CONFIG)} make serve"),
        ("", "shows these runs. Production ran for the demo only; to go on deploying to it:"),
        ("", "make demo KEEP=1"),
        ("Your database", "name it in airlock.toml, then: .venv/bin/airlock plan staging"),
    )


def kept(console: Console, on: Stage) -> None:
    """How to reach what has been left up, and what to try on it."""
    ui = on.runtime.ui_url
    console.print()
    show.said(console, "Everything is left up until Ctrl-C.", style="bold")
    lines(
        console,
        ("Prefect UI", how_to_open(on.runtime)),
        ("Reports", f"{ui}/v2/artifacts, and {shown(stage.REPORTS)}/*.md"),
        ("Service", f"{on.base_url}/health"),
        ("Database", f"its addresses are in {shown(stage.ENV_FILE)}, which only you may read"),
        ("To deploy", f"{ui}/v2/deployments: deploy/prod, Run, Custom run, release v4"),
        ("", "Migration 011 waits, and v4 is the release without the fault."),
    )
    show.said(console, "In another terminal, in this folder:", style="bold")
    for command in (
        "export PATH=$PWD/.venv/bin:$PATH",
        f"export AIRLOCK_CONFIG=$PWD/{shown(stage.CONFIG)}",
        "airlock status; airlock history prod; airlock plan prod",
        "airlock ui; airlock deploy prod --release v4",
    ):
        show.said(console, f"  {command}")
    console.print()


def lines(console: Console, *pairs: tuple[str, str]) -> None:
    for name, text in pairs:
        console.print(f"  {name:<14}{text}", soft_wrap=True, markup=False)
