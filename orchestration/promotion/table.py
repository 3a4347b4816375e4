"""The findings behind a decision, for people."""

from collections.abc import Sequence

from orchestration.promotion.rules import Finding

COLUMNS = ("", "about", "rule", "found")


def rows(findings: Sequence[Finding]) -> list[tuple[str, ...]]:
    """What failed comes first, then what was left out."""
    ordered = sorted(findings, key=lambda finding: (finding.passed, not finding.left_out))
    return [(_verdict(one), one.subject, one.rule, one.found) for one in ordered]


def _verdict(finding: Finding) -> str:
    if finding.left_out:
        return "left out"
    return "ok" if finding.passed else "NO"


def text_table(findings: Sequence[Finding]) -> str:
    table = [COLUMNS, *rows(findings)]
    widths = [max(len(row[column]) for row in table) for column in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    )


def markdown_table(findings: Sequence[Finding]) -> str:
    lines = [COLUMNS, ("---",) * len(COLUMNS), *rows(findings)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
