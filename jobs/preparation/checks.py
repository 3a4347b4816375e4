"""What a prepare stage says of its data set: rows that broke a rule, how many, which ones and why the rule exists."""

from data_contracts.rules import Contract
from jobs.preparation.assembly import Assembled
from jobs.preparation.quarantine import Rejections
from jobs.preparation.settings import ContractConfig
from jobs.preparation.validation import ManifestValidation
from jobs.runner.context import Check

TableRow = dict[str, str | int]


def contract_check(contract: Contract, result: Assembled, limits: ContractConfig) -> Check:
    """Whether rows were accepted, and no more of them damaged than is allowed."""
    read, rejected = result.total.rows_read, result.rejections
    damaged = sum(n for rule, n in rejected.rows_of_rule.items() if contract[rule].breach == "damage")
    share, limit = damaged / max(1, read), limits.max_quarantined_share
    reason = (
        f"{rejected.rows} of {read} rows quarantined, {damaged} of them damaged "
        f"({share:.2%}, limit {limit:.2%}){_counted(rejected)}"
    )
    if not result.total.rows_accepted:
        reason = f"no row was accepted; {reason}"
    return Check(
        name="contract",
        passed=bool(result.total.rows_accepted) and share <= limit,
        blocking=True,
        reason=reason,
        details={"rules": rule_table(contract, rejected)},
    )


def warnings_check(contract: Contract, found: Rejections, rows: int, limits: ContractConfig) -> Check:
    """Whether few enough of the accepted rows break a rule that only warns."""
    most = max(found.rows_of_rule.values(), default=0)
    share, limit = most / max(1, rows), limits.max_warned_share
    return Check(
        name="warnings",
        passed=share <= limit,
        reason=f"a rule warns of at most {share:.2%} of the accepted rows (limit {limit:.2%}){_counted(found)}",
        details={"rules": rule_table(contract, found)},
    )


def expectations_check(outcome: ManifestValidation) -> Check:
    """Whether the accepted rows meet the contract's Great Expectations suite."""
    failed = ", ".join(f"{rule} ({count})" for rule, count in outcome.failed.items())
    return Check(
        name="expectations",
        passed=not outcome.failed,
        blocking=True,
        reason=f"accepted rows break {failed}" if failed else f"{outcome.expectations} expectations hold",
        details=outcome.failed,
    )


def rule_table(contract: Contract, found: Rejections) -> list[TableRow]:
    """One row a broken rule, in the contract's order."""
    return [
        {
            "rule": rule.name,
            "rows": found.rows_of_rule[rule.name],
            "breach": rule.breach,
            "first_ids": "; ".join(found.examples[rule.name]),
            "why": rule.why,
        }
        for rule in contract.rules
        if rule.name in found.rows_of_rule
    ]


def _counted(found: Rejections) -> str:
    counts = ", ".join(f"{rule} {rows}" for rule, rows in sorted(found.rows_of_rule.items()))
    return f": {counts}" if counts else ""
