"""What stands above a statement in the same transaction, as far as rules ask for it."""

from __future__ import annotations

from dataclasses import dataclass, field

from airlock.effects import Prediction, World
from airlock.lint import sql
from airlock.syntax import Node, Statement

DML = ("UpdateStmt", "DeleteStmt", "MergeStmt", "InsertStmt")
# What a row is sought by when it is one of few.
_KEYS = ("id", "uuid", "ctid")


@dataclass(slots=True, kw_only=True)
class Above:
    """The first statement of each sort; None where there was none.

    ddl: changes the schema and keeps writers of an existing table out. fill: writes many rows of
        one. holder: locks a table entirely. worked: whether something behind the holder took time.
    constraints: by table and name, where it was added. values, types: the new values of enums and
        the new enums.
    """

    ddl: Prediction | None = None
    fill: Prediction | None = None
    holder: Prediction | None = None
    worked: bool = False
    constraints: dict[tuple[str, str], Statement] = field(
        default_factory=dict[tuple[str, str], Statement]
    )
    values: list[Statement] = field(default_factory=list[Statement])
    types: list[tuple[str, ...]] = field(default_factory=list[tuple[str, ...]])

    @property
    def locked(self) -> set[str | None]:
        """The relations that the holder locks."""
        effects = self.holder.effects if self.holder else ()
        return {each.relation for each in effects if each.blocks_reads}

    def take(self, prediction: Prediction, world: World) -> None:
        """Go on below the statement."""
        statement = prediction.statement
        many = fills(statement)
        if self.holder is not None and not self.worked and not many:
            self.worked = takes_time(prediction, self.locked)
        if self.holder is None and prediction.blocks_reads:
            self.holder = prediction
        if self.fill is None and many and prediction.effects:
            self.fill = prediction
        if self.ddl is None and is_strong(prediction):
            self.ddl = prediction
        match statement.kind:
            case "AlterEnumStmt":
                self.values.append(statement)
            case "CreateEnumStmt":
                self.types.append(sql.strings(statement.node["typeName"]))
            case "AlterTableStmt":
                self._constraints(statement, world)
            case _:
                pass

    def _constraints(self, statement: Statement, world: World) -> None:
        for name in added_constraints(statement):
            self.constraints.setdefault((world.key(statement.node["relation"]), name), statement)


def added_constraints(statement: Statement) -> list[str]:
    """The names of the constraints that an ALTER TABLE adds."""
    commands = [each["AlterTableCmd"] for each in statement.node.get("cmds", ())]
    return [
        each["def"]["Constraint"].get("conname", "")
        for each in commands
        if each.get("subtype") == "AT_AddConstraint"
    ]


def is_strong(prediction: Prediction) -> bool:
    """Whether it is a change of the schema that keeps writers of an existing table out."""
    return prediction.statement.kind not in DML and prediction.blocks_writes


def takes_time(prediction: Prediction, locked: set[str | None]) -> bool:
    """Whether it works on rows, or has to wait for another lock than those that are held."""
    if prediction.unknown or any(each.rewrites or each.scans for each in prediction.effects):
        return True
    if prediction.statement.kind in (*DML, "SelectStmt") or prediction.builds:
        return bool(prediction.effects)
    return any(each.blocks_writes and each.relation not in locked for each in prediction.effects)


# ---------------------------------------------------------------- how many rows


def fills(statement: Statement) -> bool:
    """Whether it writes many rows, as far as its text tells."""
    node = statement.node
    if statement.kind == "InsertStmt":
        return "fromClause" in node.get("selectStmt", {}).get("SelectStmt", {})
    return statement.kind in DML and not is_bounded(node.get("whereClause"))


def is_bounded(where: Node | None) -> bool:
    """Whether a condition names its rows by key: ``id = 5``, ``id BETWEEN 1 AND 100``."""
    if where is None:
        return False
    kind, node = next(iter(where.items()))
    if kind == "BoolExpr":
        parts = [is_bounded(each) for each in node.get("args", ())]
        either = {"AND_EXPR": any, "OR_EXPR": all}.get(node["boolop"])
        return bool(either and either(parts)) or _is_range(node)
    if kind == "SubLink":
        return "limitCount" in node.get("subselect", {}).get("SelectStmt", {})
    return kind == "CurrentOfExpr" or (kind == "A_Expr" and _is_lookup(node))


def _is_lookup(node: Node) -> bool:
    """``id = 5``, ``id IN (5, 6)`` and ``id BETWEEN 5 AND 6``"""
    if not _is_key(node.get("lexpr", {})):
        return False
    if node["kind"] == "AEXPR_BETWEEN":
        return True
    is_equal = sql.strings(node.get("name", ())) == ("=",)
    known = node["kind"] in ("AEXPR_OP", "AEXPR_IN")
    return is_equal and known and _is_constant(node.get("rexpr", {}))


def _is_range(node: Node) -> bool:
    """``id > 1 AND id <= 100``"""
    compared = [each["A_Expr"] for each in node.get("args", ()) if "A_Expr" in each]
    signs = {
        sql.strings(each.get("name", ()))[0][:1]
        for each in compared
        if each["kind"] == "AEXPR_OP" and _is_key(each.get("lexpr", {}))
    }
    return node["boolop"] == "AND_EXPR" and {"<", ">"} <= signs


def _is_key(node: Node) -> bool:
    names = sql.strings(node.get("ColumnRef", {}).get("fields", ()))
    return bool(names) and (names[-1] in _KEYS or names[-1].endswith("_id"))


def _is_constant(node: Node) -> bool:
    if "List" in node:
        return all(map(_is_constant, node["List"].get("items", ())))
    inner = node["TypeCast"].get("arg", {}) if "TypeCast" in node else node
    return "A_Const" in inner
