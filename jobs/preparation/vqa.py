"""Question sets as kinds of data sets: one a format, for each has rules of its own."""

from functools import partial

from data_contracts.rules import Contract
from data_contracts.schemas import VQA_SCHEMA
from data_contracts.vqa import MME_CONTRACT, POPE_CONTRACT, VQAV2_CONTRACT
from jobs.formats.dataset import Open
from jobs.formats.mme import open_mme
from jobs.formats.pope import open_pope
from jobs.formats.raw import visible
from jobs.formats.vqav2 import open_vqav2
from jobs.preparation.kind import Kind
from jobs.preparation.measuring import MeasuredImage, MeasuredRow
from jobs.preparation.rows import Row, image_fields, split_of


def _shard_rows(
    scoring: str, image: MeasuredImage, rows: list[MeasuredRow], source: str, held_out_share: float
) -> list[Row]:
    """The row of VQA_SCHEMA of an image with these accepted questions, whose split is that of their file."""
    split = split_of(image, rows[0], held_out_share)
    return [
        image_fields(image, source, split)
        | {"questions": [_question(row) | {"scoring": scoring} for row in rows]}
    ]


def _question(row: MeasuredRow) -> Row:
    answers = row.raw.answers
    assert answers is not None
    return {
        "question_id": row.raw.row_id,
        "question": visible(row.raw.expressions[0]),
        "answers": list(answers.texts),
        "category": answers.category,
        "question_type": answers.question_type,
        "pair": answers.pair,
    }


def _kind(name: str, reader: Open, contract: Contract) -> Kind:
    return Kind(
        row="question",
        schema=VQA_SCHEMA,
        contract=contract,
        formats={name: reader},
        rows_unique_across_images=True,
        shard_rows=partial(_shard_rows, name),
        panels=(
            ("longest_expression", "question (characters)"),
            ("questions_of_image", "questions of its image"),
        ),
    )


VQA = {
    "pope": _kind("pope", open_pope, POPE_CONTRACT),
    "vqav2": _kind("vqav2", open_vqav2, VQAV2_CONTRACT),
    "mme": _kind("mme", open_mme, MME_CONTRACT),
}
