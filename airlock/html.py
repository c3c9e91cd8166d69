"""A report as one file that a browser shows without anything beside it."""

from __future__ import annotations

import html
import os
from collections.abc import Callable
from pathlib import Path

from airlock import report, timeline
from airlock.report import DeployReport, Section
from airlock.visible import visible

_STYLE = """
:root { color-scheme: light dark; --ink: #0f172a; --quiet: #475569; --ground: #ffffff;
  --panel: #f1f5f9; --line: #cbd5e1; --plus: #166534; --minus: #991b1b; --change: #92400e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e2e8f0; --quiet: #94a3b8; --ground: #0f172a;
  --panel: #1e293b; --line: #334155; --plus: #86efac; --minus: #fca5a5; --change: #fcd34d; } }
body { margin: 2rem auto; max-width: 62rem; padding: 0 1rem; color: var(--ink);
  background: var(--ground); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; } h2, summary { font-size: 1.1rem; }
h2 { margin: 2rem 0 .5rem; } summary { font-weight: 600; cursor: pointer; }
details { margin: 1.5rem 0; } img { max-width: 100%; height: auto; margin: 1rem 0; }
.wide { overflow-x: auto; } table { border-collapse: collapse; }
th, td { padding: .3rem .7rem; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); } th { color: var(--quiet); }
tr td:first-child { color: var(--quiet); } thead:has(th:empty) { display: none; }
thead:has(th:empty) + tbody td:first-child { white-space: nowrap; }
pre, code { font: 13px/1.45 ui-monospace, monospace; background: var(--panel); border-radius: 4px; }
pre { padding: .8rem; overflow-x: auto; } code { padding: .1rem .25rem; }
pre code { padding: 0; } .plus { color: var(--plus); } .minus { color: var(--minus); }
.change { color: var(--change); }
li.done, li.failed, li.open { list-style: none; margin-left: -1.2rem; }
li.failed { color: var(--minus); } li.open { color: var(--quiet); }
@media print { body { margin: 0; max-width: none; font-size: 11px; } pre { white-space: pre-wrap; }
  details::details-content { content-visibility: visible; } summary { list-style: none; }
  h2, summary { break-after: avoid; } tr, img { break-inside: avoid; } }
"""
# Nothing is loaded from anywhere, and nothing in it runs.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'"
_KINDS = {True: "done", False: "failed", None: "open"}
_SIGNS = {"+": "plus", "-": "minus", "~": "change"}


def page(found: DeployReport) -> str:
    """The report as HTML: one file, no script, nothing from outside."""
    render = _renderer()
    head, *rest = report.sections(found)
    title = html.escape(visible(found.deploy.headline))
    body = "\n".join(_section(each, render) for each in rest)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{title}</h1>\n{render(head.body)}\n{body}\n</body>\n</html>\n"
    )


def write(path: Path, text: str) -> None:
    """Write a page for its owner alone: it names people, tables and errors."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(file, "w", encoding="utf-8") as out:
        os.fchmod(file, 0o600)
        out.write(text)


def _section(section: Section, render: Callable[[str], str]) -> str:
    title, body = html.escape(section.title), render(section.body)
    lead = render(section.lead)
    if section.picture:
        address = timeline.data_address(section.picture)
        alt = html.escape(section.alt) or f"{title} of the steps; the table below says the same"
        body = f'<img alt="{alt}" src="{address}">\n{body}'
    body = lead + body
    if section.folded:
        return f"<details><summary>{title}</summary>\n{body}</details>"
    return f"<section><h2>{title}</h2>\n{body}</section>"


def _renderer() -> Callable[[str], str]:
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False, "highlight": _highlighted}).enable("table")

    def render(text: str) -> str:
        made = parser.render(text)
        for ok, kind in _KINDS.items():
            sign = report.SIGNS[ok]
            made = made.replace(f"<li>{sign} ", f'<li class="{kind}">{sign} ')
        made = made.replace("<table>", '<div class="wide"><table>')
        return made.replace("</table>", "</table></div>")

    return render


def _highlighted(code: str, language: str, attributes: str) -> str:
    """Lines of a difference in the colour of their sign; other code as it is."""
    del attributes
    if language != "diff":
        return ""
    lines = (_line(line) for line in code.splitlines())
    return "\n".join(lines) + "\n"


def _line(line: str) -> str:
    kind = _SIGNS.get(line.strip()[:1])
    text = html.escape(line)
    return f'<span class="{kind}">{text}</span>' if kind else text
