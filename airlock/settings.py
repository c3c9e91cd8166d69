"""What ``airlock.toml`` says, checked once, at the edge.

Secrets are never in the file: it names environment variables, and their values are read at the
moment of use. A target is passed around by its name.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from airlock import dsn, files, permissions
from airlock.errors import Refused

CONFIG_VARIABLE = "AIRLOCK_CONFIG"
CONFIG_NAME = "airlock.toml"

_BLANKS = " \t\r"
_TARGET = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")

Positive = Annotated[float, Field(gt=0)]
# A rule's name, or a table with its name and arguments; airlock.masking reads it.
MaskRule = str | dict[str, str | bool | int | float]


class _Section(BaseModel):
    # A secret that somebody wrote into the file must not stand in the error about it.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Budget(_Section):
    """How long production may be kept waiting."""

    lock_timeout_ms: Annotated[int, Field(ge=10, le=60_000)] = 200
    statement_timeout_s: Positive = 300
    build_timeout_s: Positive = 7200
    tries: Annotated[int, Field(ge=1, le=1000)] = 30
    pause_ms: Annotated[int, Field(ge=1, le=60_000)] = 200
    max_block_ms: Annotated[int, Field(ge=1, le=3_600_000)] = 250
    blockers: Literal["wait", "cancel", "terminate"] = "wait"
    blocker_state: Literal["idle in transaction", "any"] = "idle in transaction"

    @model_validator(mode="after")
    def _check_blockers(self) -> Self:
        if self.blockers == "cancel" and self.blocker_state != "any":
            raise ValueError(
                'blockers = "cancel" does nothing to a session that is idle in transaction: it '
                'runs no statement. Say "terminate", or blocker_state = "any"'
            )
        return self


class BackfillSettings(_Section):
    """How hard a backfill may work production. rest: a share of the time that a batch took."""

    batch_ms: Annotated[int, Field(ge=10, le=60_000)] = 100
    rest: Annotated[float, Field(ge=0, le=100)] = 0.25
    max_lag_s: Positive = 10
    max_stall_ms: Positive = 1000
    max_wait_s: Positive = 600


class SnapshotPolicy(_Section):
    """How the target is backed up, and how many backups are kept."""

    provider: Literal["auto", "physical", "logical"] = "auto"
    keep: Annotated[int, Field(ge=1)] = 5
    keep_min: Annotated[int, Field(ge=1)] = 2
    jobs: Annotated[int, Field(ge=1, le=64)] = 2


class ClonePolicy(_Section):
    """Where the snapshot is restored: a scratch server, or a database of a dev server."""

    dev_url_env: str | None = None
    compare_max_bytes: Annotated[int, Field(ge=0)] = 20 * 2**30
    try_releases: bool = True
    traffic_sessions: Annotated[int, Field(ge=0, le=16)] = 0


class ServiceSettings(_Section):
    """The service that lives on the database, and how it is started and stopped."""

    adapter: Literal["process", "systemd", "command"] = "process"
    directory: Path = Path()
    command: tuple[str, ...] = ("python3", "start_server.py")
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    env: tuple[str, ...] = ()
    env_file: Path | None = None
    database_env: str = "DATABASE_URL"
    inherit_socket: bool = True
    ready_s: Positive = 30
    drain_s: Positive = 10
    repository: Path | None = None
    build: tuple[str, ...] = ()
    build_timeout_s: Positive = 600
    keep_releases: Annotated[int, Field(ge=1)] = 3
    unit: str | None = None
    unit_action: Literal["restart", "reload", "reload-or-restart"] = "restart"
    start: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    reload: tuple[str, ...] = ()


class Smoke(_Section):
    """One endpoint and the answer it should give."""

    path: str
    status: Annotated[int, Field(ge=100, le=599)] = 200
    method: Literal["GET", "HEAD"] = "GET"


class HealthSettings(_Section):
    """What counts as healthy, and how long we look."""

    url: str | None = None
    consecutive: Annotated[int, Field(ge=1)] = 5
    interval_ms: Annotated[int, Field(ge=10)] = 200
    timeout_s: Positive = 2
    bake_s: Annotated[float, Field(ge=0)] = 3
    deadline_s: Positive = 60
    smoke: tuple[Smoke, ...] = ()
    frontend_url: str | None = None
    log_file: Path | None = None
    max_log_errors: Annotated[int, Field(ge=0)] = 0


class ProbeWrite(_Section):
    """A request through the service that writes something harmless, many times in a second."""

    path: str
    method: Literal["POST", "PUT", "PATCH", "DELETE"] = "POST"
    body: str = ""


class ProbeSettings(_Section):
    """What a client is made to do beside each deploy, to see what clients feel."""

    enabled: bool = True
    interval_ms: Annotated[int, Field(ge=10, le=10_000)] = 50
    read: str | None = None
    write: ProbeWrite | None = None


class EmailSettings(_Section):
    """A mail server, and whom to write to."""

    host: str
    port: Annotated[int, Field(ge=1, le=65535)] = 587
    sender: str
    to: Annotated[tuple[str, ...], Field(min_length=1)]
    tls: Literal["starttls", "tls", "none"] = "starttls"
    user: str | None = None
    password_env: str | None = None


class GithubSettings(_Section):
    """The repository whose deployment statuses are set."""

    repository: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    token_env: str
    api_url: str = "https://api.github.com"
    environment: str | None = None


class AlertSettings(_Section):
    """Where alerts go. What is secret is the name of an environment variable."""

    slack_url_env: str | None = None
    pagerduty_key_env: str | None = None
    pagerduty_url: str = "https://events.pagerduty.com/v2/enqueue"
    webhook_url_env: str | None = None
    email: EmailSettings | None = None
    github: GithubSettings | None = None
    # Recover comes first, where anything runs that could start it.
    silent_s: Annotated[float, Field(ge=30)] = 120


class ApprovalSettings(_Section):
    """Whether a person reads the rehearsal before production is touched."""

    policy: Literal["none", "lossy-or-blocking", "always"] = "none"
    timeout_s: Positive = 86_400


class RefreshSettings(_Section):
    """How a target is replaced by a masked copy of another one."""

    source: str
    admin_url_env: str | None = None
    max_age_h: Positive = 12
    keep: Annotated[int, Field(ge=0)] = 1
    jobs: Annotated[int, Field(ge=1, le=64)] = 2
    key_env: str
    neutralise: tuple[str, ...] = ()
    sentinels: tuple[str, ...] = ()


class MetricsSettings(_Section):
    """Where Prometheus finds what was measured: a file to read, or a gateway to push to."""

    file: Path | None = None
    push_url_env: str | None = None


class LintSettings(_Section):
    """What `airlock lint --target` makes of the rules. levels: by rule, where not its own."""

    fail_on: Literal["info", "warning", "error", "never"] = "error"
    levels: dict[str, Literal["off", "info", "warning", "error"]] = {}
    large_rows: Annotated[int, Field(ge=0)] = 10_000


class Target(_Section):
    """One environment: a database, a service, and the policy for both."""

    name: str
    root: Path
    state_dir: Path
    migrations_dir: Path
    database_url_env: str
    replication_url_env: str | None = None
    env_file: Path | None = None
    # To databases, alert channels and gateways that are not on this machine.
    allow_plaintext: bool = False
    budget: Budget = Budget()
    backfill: BackfillSettings = BackfillSettings()
    snapshot: SnapshotPolicy = SnapshotPolicy()
    clone: ClonePolicy = ClonePolicy()
    service: ServiceSettings | None = None
    health: HealthSettings = HealthSettings()
    probe: ProbeSettings = ProbeSettings()
    alerts: AlertSettings = AlertSettings()
    approval: ApprovalSettings = ApprovalSettings()
    require_reason: bool = False
    refresh: RefreshSettings | None = None
    # Table to the rule of each of its columns, or of the whole table.
    mask: dict[str, str | dict[str, MaskRule]] = {}
    metrics: MetricsSettings = MetricsSettings()
    lint: LintSettings = LintSettings()

    @property
    def database_url(self) -> str:
        """The production role's URL. Raises Refused when its variable is not set."""
        return self.address(self.database_url_env)

    @property
    def replication_url(self) -> str:
        """The URL of a role that may take a base backup; the production role's by default."""
        return self.address(self.replication_url_env or self.database_url_env)

    @property
    def secret_variables(self) -> tuple[str, ...]:
        """The environment variables that the settings name; what is in them is secret."""
        return tuple(_variables(self))

    @property
    def env_files(self) -> tuple[Path, ...]:
        """The target's own and its service's, where they are named."""
        named = (self.env_file, self.service.env_file if self.service else None)
        return tuple(path for path in named if path is not None)

    @property
    def snapshots_dir(self) -> Path:
        return self.state_dir / self.name / "snapshots"

    @property
    def clones_dir(self) -> Path:
        return self.state_dir / self.name / "clones"

    @property
    def service_dir(self) -> Path:
        """Logs and releases of the service."""
        return self.state_dir / self.name / "service"

    def address(self, name: str) -> str:
        """The address of a database in a variable. Raises Refused when that is not set."""
        return dsn.of_target(self.variable(name), self.name, allow_plaintext=self.allow_plaintext)

    def refuse_plaintext(self, host: str) -> None:
        """Before something is sent to this host without TLS. Raises Refused where it may not be."""
        if not self.allow_plaintext and not dsn.is_this_machine(host):
            raise Refused(
                "This would be sent to another machine in plain text. Use an https:// address, or "
                f'for mail tls = "starttls" or "tls"; or set allow_plaintext = true in '
                f"[targets.{self.name}]."
            )

    def variable(self, name: str) -> str:
        """An environment variable, or its line in the target's env file."""
        value = os.environ.get(name) or read_env_file(self.env_file).get(name)
        if value:
            return value
        where = f" nor in {self.env_file}" if self.env_file else ""
        raise Refused(
            f"Target {self.name} takes {name} from the environment, and it is not set "
            f"there{where}. Set it, for example: export {name}=postgresql://user@host/database"
        )


def _variables(section: BaseModel) -> Iterator[str]:
    for key, value in section:
        if isinstance(value, BaseModel):
            yield from _variables(value)
        elif key.endswith("_env") and value:
            yield value


class Project(_Section):
    """One checkout: its migrations and its targets."""

    root: Path
    migrations_dir: Path
    state_dir: Path
    targets: dict[str, Target]
    lint_after: int = 0  # the last migration that lint need not judge

    def target(self, name: str) -> Target:
        """The target of that name. Raises Refused naming the ones there are."""
        if name in self.targets:
            return self.targets[name]
        known = ", ".join(sorted(self.targets)) or "none"
        raise Refused(
            f"There is no target {name!r} in {CONFIG_NAME}; it has: {known}. "
            f"Choose one of these, or add [targets.{name}]."
        )


def config_path(start: Path | None = None) -> Path:
    """$AIRLOCK_CONFIG, or the nearest airlock.toml in this folder and those above it."""
    if named := os.environ.get(CONFIG_VARIABLE):
        return Path(os.path.realpath(named))
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / CONFIG_NAME).is_file():
            return folder / CONFIG_NAME
    raise Refused(
        f"No {CONFIG_NAME} in {here} or above it. Go to the project's folder, "
        f"or name the file in {CONFIG_VARIABLE}."
    )


def load(path: Path | None = None) -> Project:
    """The project that airlock.toml describes. Raises Refused naming the line's key."""
    path = path or config_path()
    try:
        raw = tomllib.loads(files.read(path, most=files.SETTINGS_BYTES).decode("utf-8"))
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror}.") from error
    except RecursionError:
        raise Refused(
            f"{path} nests arrays or tables too deeply to be read. Check its brackets."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Refused(f"{path} is not TOML: {error}. Mend that line.") from error
    root = path.parent
    migrations_dir = root / _text(path, raw, "migrations", "migrations")
    state_dir = root / _text(path, raw, "state_dir", ".airlock")
    lint_after = raw.pop("lint_after", 0)
    if not isinstance(lint_after, int) or isinstance(lint_after, bool) or lint_after < 0:
        raise Refused(f"{path.name}: lint_after should be a migration's number. Mend that line.")
    targets = _tables(path, raw.pop("targets", {}))
    if raw:
        raise Refused(
            f"{path.name} has {', '.join(sorted(raw))} at its top; expected were "
            "migrations, state_dir, lint_after and [targets.NAME]. Check the spelling."
        )
    found = {
        name: _target(path, name, table, root, migrations_dir, state_dir)
        for name, table in targets.items()
    }
    _check_metrics_files(path, found)
    return Project(
        root=root,
        migrations_dir=migrations_dir,
        state_dir=state_dir,
        targets=found,
        lint_after=lint_after,
    )


def target(name: str) -> Target:
    """The target of that name in the project of this folder."""
    return load().target(name)


def _text(path: Path, raw: dict[str, Any], key: str, default: str) -> str:
    value = raw.pop(key, default)
    if not isinstance(value, str) or not value:
        raise Refused(f"{path.name}: {key} should be the name of a folder. Mend that line.")
    return value


def _tables(path: Path, targets: object) -> dict[str, dict[str, object]]:
    """The [targets.NAME] tables, checked to be such."""
    if not isinstance(targets, dict):
        raise Refused(f"{path.name}: targets should be tables, [targets.NAME]. Mend that line.")
    tables = cast("dict[str, object]", targets)
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise Refused(f"{path.name}: {name} should be a table, [targets.{name}]. Mend it.")
        # It is part of folders' and databases' names.
        if not _TARGET.fullmatch(name):
            raise Refused(
                f"{path.name}: {name!r} is not a target's name; expected were letters, digits, "
                "- and _. Rename it."
            )
    return cast("dict[str, dict[str, object]]", tables)


def _target(
    path: Path,
    name: str,
    table: dict[str, object],
    root: Path,
    migrations_dir: Path,
    state_dir: Path,
) -> Target:
    places = {"name": name, "root": root, "migrations_dir": migrations_dir, "state_dir": state_dir}
    if taken := sorted(places.keys() & table.keys()):
        raise Refused(
            f"{path.name}: [targets.{name}] {taken[0]}: extra inputs are not permitted; folders "
            "are named at the top. Remove that line."
        )
    try:
        found = Target.model_validate({**table, **places})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise Refused(
            f"{path.name}: [targets.{name}] {key}: {first['msg'].lower()}. Mend that line."
        ) from error
    service = found.service
    if service is not None:
        service = service.model_copy(
            update={
                "directory": root / service.directory,
                "repository": root / service.repository if service.repository else None,
                "env_file": root / service.env_file if service.env_file else None,
            }
        )
    health = found.health
    if health.log_file:
        health = health.model_copy(update={"log_file": root / health.log_file})
    metrics = found.metrics
    if metrics.file:
        metrics = metrics.model_copy(update={"file": root / metrics.file})
    env_file = root / found.env_file if found.env_file else None
    return found.model_copy(
        update={
            "service": service,
            "health": health,
            "metrics": metrics,
            "env_file": env_file,
        }
    )


def _check_metrics_files(path: Path, targets: dict[str, Target]) -> None:
    """Each target's numbers replace its whole file, so no two may share one."""
    taken: dict[Path, str] = {}
    for name, found in targets.items():
        file = found.metrics.file
        if file is not None and (other := taken.setdefault(file, name)) != name:
            raise Refused(
                f"{path.name}: [targets.{name}] metrics.file is that of {other} as well, {file}. "
                "Name one file for each target."
            )


def check_env_files(target: Target) -> None:
    """Raises Refused where another user may read or change an env file of the target."""
    for path in target.env_files:
        read_env_file(path)


def read_env_file(path: Path | None) -> dict[str, str]:
    """``NAME=value`` lines of an env file; comments, ``export`` and matching quotes are dropped.

    Raises Refused where another user may read or change it.
    """
    if path is None:
        return {}
    values = env_values(path)
    if (exposed := permissions.exposure(path)) is not None:
        raise Refused(
            f"The env file {path} {exposed.found}. It holds secrets and is for you alone: "
            f"{exposed.remedy}"
        )
    return values


def env_values(path: Path) -> dict[str, str]:
    """The same, whoever may read it."""
    try:
        # At nothing but line feeds: a value may hold what splitlines() takes for the end of a line.
        lines = files.read(path, most=files.SETTINGS_BYTES).decode("utf-8").split("\n")
    except OSError as error:
        raise Refused(f"The env file {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError:
        # Not "from" the error, which carries the file's bytes.
        raise Refused(f"The env file {path} is not UTF-8. Save it as UTF-8.") from None
    values: dict[str, str] = {}
    for line in lines:
        name, equals, value = line.strip(_BLANKS).removeprefix("export ").partition("=")
        if not equals or name.startswith("#"):
            continue
        value = value.strip(_BLANKS)
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        values[name.strip(_BLANKS)] = value
    return values
