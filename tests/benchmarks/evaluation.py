"""The benchmark stage's evaluation: questions in batches that share their image, against one by one.

The same code answers in both, with batches of 64 questions and of one. One by one, the language model and the
de-tokenizer encode the image for every question. The time is that of answers, masks at the size of the image and the
rows of the sample table, which are compared field by field.
"""

import tempfile
from pathlib import Path
from typing import Any

import torch

from alto_models.data.shards import ShardRows
from alto_models.tokenizer.model import MaskTokenizer
from data_contracts.schemas import REFERRING_SCHEMA
from jobs import acquire_benchmark, prepare_benchmark
from jobs.benchmarking.language import LanguageSystem
from jobs.benchmarking.questions import BenchmarkImage, Question
from jobs.benchmarking.results import ADAPTIVE
from jobs.benchmarking.rows import sample_row
from jobs.benchmarking.untrained import UntrainedAltoLLM
from tests.benchmarks.harness import arguments, interleaved, machine, milliseconds, publish, ratio, table
from tests.benchmarks.language_models import REDUCED, SMALL, LanguageModelSize, untrained
from tests.benchmarks.scenes import stage_context

IMAGES = 8
A_BATCH = 64
SCENES = {
    "format": "grefcoco",
    "source": "sample",
    "splits": {"val": 1.0},
    "expressions": {"per_object": 1, "multiple": 1, "no_target": 1},
}


def scene_rows(folder: Path, images: int) -> ShardRows:
    """Generated scenes with about eight questions each, as the benchmark `scenes` has them."""
    acquired, prepared = (
        stage_context(folder, stage, inputs, partition="scenes")
        for stage, inputs in (
            ("acquire_benchmark", {}),
            ("prepare_benchmark", {"acquire_benchmark": folder / "acquired"}),
        )
    )
    section: dict[str, Any] = {"benchmarks": {"scenes": SCENES | {"images": images}}}
    acquire_benchmark.run(acquire_benchmark.Config.model_validate(section), acquired)
    (folder / "acquired").mkdir()
    acquired.output.rename(folder / "acquired" / "scenes")
    held_out = prepare_benchmark.Config.model_validate({"benchmarks": {"scenes": {"held_out_share": 0.0}}})
    prepare_benchmark.run(held_out, prepared)
    return ShardRows(prepared.output, REFERRING_SCHEMA, None)


class Evaluation:
    """Every question about some images, answered by networks with random weights, each with a mask."""

    def __init__(self, size: LanguageModelSize, rows: ShardRows) -> None:
        self._rows = rows
        self._model = UntrainedAltoLLM(untrained(size), seed=0)
        torch.manual_seed(0)
        self._tokenizer = MaskTokenizer(size.masks).eval()

    def samples(self, a_batch: int) -> list[dict[str, Any]]:
        """Rows of the sample table, asked so many at a time."""
        system = LanguageSystem(name="m", model=self._model, tokenizer=self._tokenizer, batch_size=a_batch)
        questions = self.questions()
        answers = system.predict(questions, ADAPTIVE)
        return [sample_row(*pair, "m", ADAPTIVE) for pair in zip(questions, answers, strict=True)]

    def questions(self) -> list[Question]:
        images = [BenchmarkImage.from_row(self._rows.row(index)) for index in range(len(self._rows))]
        return [question for image in images for question in image.questions("standard")]


def main() -> None:
    options = arguments(__doc__, "evaluation", repeats=5).parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        rows = scene_rows(Path(folder), IMAGES)
        for size in (REDUCED, SMALL):
            evaluation = Evaluation(size, rows)
            single, batched = evaluation.samples(1), evaluation.samples(A_BATCH)
            same = sum(one == other for one, other in zip(single, batched, strict=True))
            seconds = interleaved(
                {
                    "one by one": lambda e=evaluation: e.samples(1),
                    "batched": lambda e=evaluation: e.samples(A_BATCH),
                },
                options.repeats,
            )
            alone, together = (time / len(single) for time in seconds.values())
            length = sum(one["length"] for one in single) / len(single)
            lines.append(
                [
                    size.name,
                    f"{length:.1f}",
                    milliseconds(alone),
                    milliseconds(together),
                    ratio(together, alone),
                    f"{same} of {len(single)}",
                ]
            )
    columns = ["ms a question", "codes a mask", "one by one", "in batches", "factor", "equal rows"]
    intro = f"{IMAGES} generated scenes, median of {options.repeats} ({machine()}):"
    publish("evaluation", f"{intro}\n\n{table(columns, lines)}", options.write)


if __name__ == "__main__":
    main()
