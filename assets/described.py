"""What a newcomer reads of an asset: what it is, what it is made of, and how to judge it."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Guide:
    """Sentences for the asset's page, in Markdown.

    reads: what it is made of. good: what to look at, and what a good result is. failing: what to do.
    page: of the documentation, relative to the project's root.
    """

    reads: str
    good: str
    failing: str
    page: str


def described(summary: str, guide: Guide) -> str:
    """A description, its first line the summary: the lineage page shows no more."""
    return "\n\n".join(
        [
            summary,
            f"**Reads:** {guide.reads}",
            f"**Good:** {guide.good}",
            f"**If it fails:** {guide.failing}",
        ]
    )
