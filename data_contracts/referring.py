"""Contract of referring expressions: what must hold for images, masks, and the expressions that mean them."""

from data_contracts.masks import (
    FILE_RULES,
    IMAGE_RULES,
    MASK_RULES,
    MEASURED_COLUMNS,
    REPETITIONS,
    ROW_RULES,
    SPLIT_RULES,
    unique_rows,
)
from data_contracts.rules import Absent, Between, Contract, Convention, Readable, Rule

# Columns beside those of a mask; a record with several masks has one row for each, one with none a
# row without mask. benchmark_image: which benchmark has the image of a row for training.
# same_expression: what the record says of its targets that was said before. stray_masks: masks of a record
# that says it has no target; missing_masks: 1 where a record has neither a mask nor says so.
REFERRING_COLUMNS: dict[str, str] = {
    **MEASURED_COLUMNS,
    "benchmark_image": "str",
    "same_expression": "str",
    "no_target": "bool",
    "expressions": "int",
    "shortest_expression": "int",
    "longest_expression": "int",
    "stray_masks": "int",
    "missing_masks": "int",
}

MAX_EXPRESSION_CHARACTERS = 2000

REFERENCE_RULES: tuple[Rule, ...] = (
    Readable(name="line_readable", why="A line of jsonl that is not JSON in UTF-8 says nothing."),
    Readable(name="annotation_exists", why="An annotation id that leads nowhere leaves its target unknown."),
    Readable(name="category_exists", why="A category id that leads nowhere leaves its object unnamed."),
)

NOT_IN_BENCHMARK = Absent(
    name="not_in_benchmark",
    column="benchmark_image",
    why="A model trained on an image of a benchmark is measured on what it was shown.",
    breach="exclusion",
)

EXPRESSION_UNIQUE = Absent(
    name="expression_unique",
    column="same_expression",
    why="The same words for the same targets weigh twice; people do say the same, and sets are published so.",
    breach="warning",
)

EXPRESSION_RULES: tuple[Rule, ...] = (
    Between(name="has_expression", column="expressions", least=1, why="Without words nothing is asked."),
    Between(
        name="expression_not_empty",
        column="shortest_expression",
        least=1,
        why="An empty expression means every object or none.",
    ),
    Between(
        name="expression_not_too_long",
        column="longest_expression",
        most=MAX_EXPRESSION_CHARACTERS,
        why="No expression of the published sets comes near; the prompt has to fit the model.",
    ),
    Between(
        name="no_target_has_no_mask",
        column="stray_masks",
        most=0,
        why="A record that says nothing is meant must not show what is meant.",
    ),
    Between(
        name="target_has_mask",
        column="missing_masks",
        most=0,
        why="A record that means something must show it.",
    ),
)

REFERRING_CONTRACT = Contract(
    name="referring",
    columns=REFERRING_COLUMNS,
    # COCO measures the outline: drawn as pixels, it moves by less than one, so the area by at most the
    # boundary. Boxes are those of the outline, and published with every rounding there is.
    convention=Convention(box_tolerance=2.0, outline_box_tolerance=2.0, outline_area_tolerance=1.0),
    rules=(
        *FILE_RULES,
        *IMAGE_RULES,
        *ROW_RULES,
        unique_rows("row_id", "mask_id"),
        *REFERENCE_RULES,
        *EXPRESSION_RULES,
        *MASK_RULES,
        NOT_IN_BENCHMARK,
        *SPLIT_RULES,
        *REPETITIONS,
        EXPRESSION_UNIQUE,
    ),
)
