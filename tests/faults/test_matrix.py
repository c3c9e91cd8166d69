"""Which faults each run of ``make faults`` plays, and where."""

from __future__ import annotations

from tests.faults import files, guards, matrix

# As a recording names them.
POINTS = (
    "open_deploy: before the deploy's row",
    "apply_plan: before the intent",
    "apply_plan: after the intent",
    "apply_plan: before applying",
    "apply_plan: after applying",
    "apply_plan: 010_first.sql, before its COMMIT",
    "apply_plan: 010_first.sql, after its COMMIT",
    "apply_plan: 011_score.sql, before its COMMIT",
    "apply_plan: 011_score.sql, after its COMMIT",
    "apply_plan: before applied",
    "apply_plan: after applied",
    "apply_plan: after the record",
    "apply_plan: closed",
)


def played(fault: str) -> list[str]:
    found = matrix.at_points("forwards", POINTS)
    return [case.name.split(" / ")[1] for case in found if case.is_played and case.fault == fault]


def test_the_flow_is_killed_at_every_point():
    assert played(matrix.KILLED) == list(POINTS)


def test_a_step_has_four_kill_points_and_a_migration_in_a_transaction_two():
    of_the_step = [POINTS[1], POINTS[2], POINTS[9], POINTS[10]]
    assert played("SIGTERM") == [*of_the_step[:2], POINTS[7], POINTS[8], *of_the_step[2:]]
    for number, fault in enumerate(matrix.BY_WORKER):
        assert played(fault) == [*of_the_step[:2], POINTS[7 + number], *of_the_step[2:]]


def test_each_guard_names_a_case_that_there_is(monkeypatch):
    # Whether it may be done is found out by mounting something.
    monkeypatch.setattr(files, "may_mount", lambda: False)
    known = {case.name for case in matrix.beside_points()}
    missing = [guard.case for guard in guards.GUARDS.values() if guard.case not in known]
    # Those at a point are known when a run was recorded, and fail there where they are not.
    assert all(case.startswith(("forwards / ", "rollback / ")) for case in missing), missing
