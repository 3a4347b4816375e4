"""Held-out questions: several processes give the figures of one."""

import multiprocessing
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from alto_models.altollm import evaluation
from alto_models.altollm.evaluation import Evaluation, HeldOut, evaluate, spread
from alto_models.data.referring import ReferringImages
from alto_models.tokenizer.model import MaskTokenizer
from tests.alto_models.altollm.tiny import untrained
from tests.alto_models.tokenizer.tiny import TINY
from tests.jobs.tokenizer_example import write_prepared_records

IMAGES = 5


def evaluated(records: Path) -> Evaluation:
    evaluation.IMAGES_A_BATCH = 2
    torch.manual_seed(3)
    tokenizer = MaskTokenizer(TINY).eval()
    images = spread(ReferringImages(records, "train"), IMAGES)
    return evaluate(untrained(), tokenizer, HeldOut.of(images), adaptive=True)


def run(folder: Path, rank: int, processes: int) -> None:
    torch.set_num_threads(1)
    meeting = f"file://{folder / 'meeting'}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=processes)
    (folder / f"{rank}.txt").write_text(summary(evaluated(folder / "records")))
    dist.destroy_process_group()


def summary(found: Evaluation) -> str:
    each = [
        (one.question.record_id, one.answer, one.overlap, one.mask.shape, int(one.mask.sum()))
        for one in found.asked
    ]
    return f"{found.figures('val')} {each}"


@pytest.mark.slow
def test_two_processes_answer_what_one_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "IMAGES_A_BATCH", 2)
    write_prepared_records(tmp_path / "records", "discs", images=IMAGES)
    alone = evaluated(tmp_path / "records")
    assert len(alone.asked) == 3 * IMAGES
    context = multiprocessing.get_context("forkserver")
    started = [context.Process(target=run, args=(tmp_path, rank, 2)) for rank in range(2)]
    for process in started:
        process.start()
    for process in started:
        process.join(120)
    assert [process.exitcode for process in started] == [0, 0]
    assert [(tmp_path / f"{rank}.txt").read_text() for rank in range(2)] == [summary(alone)] * 2


def test_a_few_questions_are_asked_about_their_own_images(tmp_path: Path) -> None:
    write_prepared_records(tmp_path / "records", "discs", images=IMAGES)
    held_out = HeldOut.of(spread(ReferringImages(tmp_path / "records", "train"), IMAGES))
    few = held_out.few(4)
    assert [question.image_index for question in few.questions] == [0, 1, 2, 3]
    for question, image in zip(few.questions, few.images, strict=True):
        assert question.record_id in [record.record_id for record in image.records]
    assert few.questions[0].record_id == held_out.questions[0].record_id
    assert few.questions[-1].record_id == held_out.questions[-1].record_id
