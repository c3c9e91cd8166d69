"""What airlock.toml may say, and what the message says when it says something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from airlock import settings
from airlock.errors import Refused

SECRET = "s3cr3t"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(settings.CONFIG_VARIABLE, raising=False)
    monkeypatch.delenv("PROD_URL", raising=False)
    folder = tmp_path / "project"
    folder.mkdir()

    def make(text: str) -> Path:
        path = folder / "airlock.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return make


PROD = '[targets.prod]\ndatabase_url_env = "PROD_URL"\n'


def test_the_defaults_are_enough_for_a_target(write):
    found = settings.load(write(PROD))
    target = found.target("prod")
    assert target.migrations_dir == found.root / "migrations"
    assert target.state_dir == found.root / ".airlock"
    assert target.snapshots_dir == found.root / ".airlock" / "prod" / "snapshots"
    assert target.service is None


def test_paths_are_resolved_against_the_folder_of_the_file(write, monkeypatch, tmp_path):
    path = write(
        'migrations = "db/migrations"\nstate_dir = "/var/lib/airlock"\n'
        f'{PROD}env_file = "prod.env"\n'
        '[targets.prod.service]\ndirectory = "service"\nrepository = "."\nenv_file = "s.env"\n'
        '[targets.prod.health]\nlog_file = "logs/service.log"\n'
    )
    monkeypatch.chdir(tmp_path)
    target = settings.load(path).target("prod")
    root = path.parent
    assert target.migrations_dir == root / "db/migrations"
    assert target.state_dir == Path("/var/lib/airlock")
    assert target.env_file == root / "prod.env"
    assert target.service is not None
    assert target.service.directory == root / "service"
    assert target.service.repository == root
    assert target.service.env_file == root / "s.env"
    assert target.health.log_file == root / "logs/service.log"


def test_the_file_is_found_from_a_folder_below(write, monkeypatch):
    path = write(PROD)
    below = path.parent / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert settings.config_path() == path


def test_the_variable_names_another_file(write, monkeypatch, tmp_path):
    path = write(PROD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(settings.CONFIG_VARIABLE, str(path))
    assert settings.target("prod").root == path.parent


def test_no_file_anywhere_is_refused_with_both_remedies(tmp_path, monkeypatch):
    monkeypatch.delenv(settings.CONFIG_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Refused, match=r"No airlock\.toml in .* AIRLOCK_CONFIG"):
        settings.config_path()


REFUSED = {
    "not TOML": ("[targets.prod\n", r"not TOML: .*line 1.*Mend"),
    "an unknown key at the top": ("migratoins = 'x'\n" + PROD, r"migratoins at its top.*spelling"),
    "a wrong type at the top": ("migrations = 3\n" + PROD, r"migrations should be the name"),
    "targets that are no tables": ("targets = 3\n", r"targets should be tables"),
    "a target that is no table": ("[targets]\nprod = 3\n", r"prod should be a table"),
    "a target that is no folder's name": (
        '[targets."../x"]\ndatabase_url_env = "A"\n',
        r"'\.\./x' is not a target's name.*Rename",
    ),
    "an unknown key": (PROD + "databse = 1\n", r"\[targets\.prod\] databse: extra inputs"),
    "a key that belongs at the top": (
        PROD + "state_dir = 'x'\n",
        r"\[targets\.prod\] state_dir: .*at the top",
    ),
    "an unknown key below": (
        PROD + "[targets.prod.budget]\nlock_timout_ms = 1\n",
        r"budget\.lock_timout_ms: extra inputs",
    ),
    "a wrong type": (
        PROD + "[targets.prod.budget]\nlock_timeout_ms = 'fast'\n",
        r"budget\.lock_timeout_ms: .*integer.*Mend that line",
    ),
    "a value out of range": (
        PROD + "[targets.prod.snapshot]\nkeep = 0\n",
        r"snapshot\.keep: .*greater than or equal to 1",
    ),
    "a probe that would do nothing else": (
        PROD + "[targets.prod.probe]\ninterval_ms = 1\n",
        r"probe\.interval_ms: .*greater than or equal to 10",
    ),
    "a write of the probe without a path": (
        PROD + "[targets.prod.probe.write]\nbody = '{}'\n",
        r"probe\.write\.path: field required",
    ),
    "a word that is no choice": (
        PROD + "[targets.prod.snapshot]\nprovider = 'zfs'\n",
        r"snapshot\.provider: .*'physical'",
    ),
    "a missing key": ("[targets.prod]\n", r"\[targets\.prod\] database_url_env: field required"),
}


@pytest.mark.parametrize(("text", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_the_file_may_not_say_is_refused_by_its_key(write, text, said):
    with pytest.raises(Refused, match=said):
        settings.load(write(text))


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(Refused, match="cannot be read"):
        settings.load(tmp_path / "airlock.toml")


def test_an_unknown_target_is_refused_with_those_there_are(write):
    with pytest.raises(Refused, match=r"no target 'dev' in airlock\.toml; it has: prod"):
        settings.load(write(PROD)).target("dev")


# ---------------------------------------------------------------- secrets


def test_a_missing_variable_is_refused_by_name(write):
    target = settings.load(write(PROD)).target("prod")
    with pytest.raises(Refused, match=r"Target prod takes PROD_URL .*export PROD_URL="):
        _ = target.database_url


def test_a_missing_variable_names_the_env_file_that_was_read_too(write):
    path = write(PROD + 'env_file = "prod.env"\n')
    (path.parent / "prod.env").write_text("OTHER=1\n", encoding="utf-8")
    with pytest.raises(Refused, match=r"nor in .*prod\.env"):
        _ = settings.load(path).target("prod").database_url


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("PROD_URL=a=b", "a=b"),
        ("export PROD_URL=a", "a"),
        ('PROD_URL="a b"', "a b"),
        ("  PROD_URL = 'a' ", "a"),
        ("# PROD_URL=b\nPROD_URL=a", "a"),
        ("PROD_URL='a\"", "'a\""),
        ("PROD_URL=a\r", "a"),
        # None of them ends a line, and none is blank.
        ("PROD_URL=a\u2028b\x85", "a\u2028b\x85"),
        ("PROD_URL=a\x0bb\x0cc\x1dd", "a\x0bb\x0cc\x1dd"),
        ("PROD_URL=a\u2029OTHER=b\u00a0", "a\u2029OTHER=b\u00a0"),
    ],
)
def test_the_env_file_gives_what_the_environment_does_not(write, monkeypatch, line, value):
    path = write(PROD + 'env_file = "prod.env"\n')
    (path.parent / "prod.env").write_text(line + "\n", encoding="utf-8")
    target = settings.load(path).target("prod")
    assert target.database_url == value
    monkeypatch.setenv("PROD_URL", "from the environment")
    assert target.database_url == "from the environment"


@pytest.mark.parametrize("content", [None, b"PROD_URL=caf\xe9 " + SECRET.encode()])
def test_an_env_file_that_cannot_be_read_is_refused_and_shows_nothing_of_it(write, content):
    path = write(PROD + 'env_file = "prod.env"\n')
    if content is not None:
        (path.parent / "prod.env").write_bytes(content)
    with pytest.raises(Refused, match=r"The env file .*prod\.env") as caught:
        _ = settings.load(path).target("prod").database_url
    assert SECRET not in repr(chain(caught.value))


def test_what_nests_too_deeply_is_refused(write):
    for text in (f"x = {'[' * 5000}{']' * 5000}", f"x = {'{a=' * 5000}1{'}' * 5000}"):
        with pytest.raises(Refused, match="too deeply to be read"):
            settings.load(write(text))


def test_no_secret_is_in_a_target(write, monkeypatch):
    monkeypatch.setenv("PROD_URL", f"postgresql://u:{SECRET}@host/db")
    path = write(PROD + 'env_file = "prod.env"\n')
    (path.parent / "prod.env").write_text(f"PROD_URL={SECRET}\n", encoding="utf-8")
    project = settings.load(path)
    assert SECRET in project.target("prod").database_url
    assert SECRET not in repr(project) + str(project.model_dump())


def test_a_secret_written_into_the_file_is_not_in_the_message_about_it(write):
    with pytest.raises(Refused) as caught:
        settings.load(write(PROD + f'database_url = "postgresql://u:{SECRET}@host/db"\n'))
    assert "database_url" in str(caught.value)
    assert SECRET not in "".join(map(str, chain(caught.value)))


def chain(error: BaseException | None) -> list[BaseException]:
    """An error and those it was raised from, as a traceback shows them."""
    return [error, *chain(error.__cause__)] if error is not None else []


def test_two_targets_do_not_write_their_metrics_over_each_other(write):
    both = "".join(
        f'[targets.{name}]\ndatabase_url_env = "URL"\n'
        f'[targets.{name}.metrics]\nfile = "{name}.prom"\n'
        for name in ("prod", "staging")
    )
    found = settings.load(write(both))
    assert found.target("prod").metrics.file == found.root / "prod.prom"
    with pytest.raises(Refused, match=r"\[targets.staging\] metrics.file is that of prod as well"):
        settings.load(write(both.replace("staging.prom", "prod.prom")))
