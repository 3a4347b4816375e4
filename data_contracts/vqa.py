"""Contracts of question sets (POPE, VQAv2, MME): what must hold for images, questions and their answers."""

from data_contracts.masks import FILE_RULES, IMAGE_RULES, ROW_RULES, unique_rows
from data_contracts.rules import Between, Contract, Readable, Rule

# Columns of the checked frame, one row per question. other_than_yes_no: answers that are neither;
# questions_of_image: those that could be read.
VQA_COLUMNS: dict[str, str] = {
    "source_file": "str",
    "image_id": "str",
    "row_id": "str",
    "split": "str",
    "category": "str",
    "width": "int",
    "height": "int",
    "stated_width": "int",
    "stated_height": "int",
    "pixels": "int",
    "longest_expression": "int",
    "answers": "int",
    "other_than_yes_no": "int",
    "questions_of_image": "int",
}

MAX_QUESTION_CHARACTERS = 2000
VQAV2_ANSWERS = 10
MME_QUESTIONS = 2
# Its subtasks, in the two groups that are summed.
MME_PERCEPTION = (
    "existence",
    "count",
    "position",
    "color",
    "posters",
    "celebrity",
    "scene",
    "landmark",
    "artwork",
    "OCR",
)
MME_COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")

QUESTION_RULES: tuple[Rule, ...] = (
    Readable(name="line_readable", why="A line that is not in the format says nothing."),
    Readable(name="annotation_exists", why="A question without answers of its own cannot be scored."),
    Readable(name="question_exists", why="Answers to a question that is not there cannot be used."),
    Between(
        name="question_not_empty",
        column="longest_expression",
        least=1,
        why="Without words nothing is asked.",
    ),
    Between(
        name="question_not_too_long",
        column="longest_expression",
        most=MAX_QUESTION_CHARACTERS,
        why="No question of the published sets comes near; the prompt has to fit the model.",
    ),
)

ONE_ANSWER = Between(
    name="one_answer", column="answers", least=1, most=1, why="A yes/no question has one right answer."
)
YES_OR_NO = Between(
    name="answer_is_yes_or_no",
    column="other_than_yes_no",
    most=0,
    why="The score counts yes and no; another label would always be wrong.",
)
TEN_ANSWERS = Between(
    name="ten_answers",
    column="answers",
    least=VQAV2_ANSWERS,
    most=VQAV2_ANSWERS,
    why="The official accuracy compares with ten people; with fewer it is another measure.",
)
TWO_QUESTIONS = Between(
    name="two_questions_an_image",
    column="questions_of_image",
    least=MME_QUESTIONS,
    most=MME_QUESTIONS,
    why="MME counts an image as understood where both of its questions are answered right.",
    blames="image",
)


def _contract(name: str, *rules: Rule) -> Contract:
    common = (*FILE_RULES, *IMAGE_RULES, *ROW_RULES, unique_rows("row_id"), *QUESTION_RULES)
    return Contract(name=name, columns=VQA_COLUMNS, rules=(*common, *rules))


POPE_CONTRACT = _contract("pope", ONE_ANSWER, YES_OR_NO)
VQAV2_CONTRACT = _contract("vqav2", TEN_ANSWERS)
MME_CONTRACT = _contract("mme", ONE_ANSWER, YES_OR_NO, TWO_QUESTIONS)
