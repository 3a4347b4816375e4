"""Answers to the same few questions while a model trains: what it has learned so far can be seen."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alto_models.altollm.answering import AltoLLM
from alto_models.altollm.evaluation import HeldOut, evaluate
from alto_models.checkpoint import replace_atomically
from alto_models.tokenizer.model import MaskTokenizer
from alto_models.training.processes import process_rank
from jobs.altollm_pictures import save_progress
from jobs.runner.context import StageContext

QUESTIONS = 6


class Progress:
    """Masks are kept in `context.work`, so that a resumed run has those from before."""

    def __init__(
        self,
        context: StageContext,
        llm: AltoLLM,
        tokenizer: MaskTokenizer,
        held_out: HeldOut,
        every: int,
    ) -> None:
        self._context = context
        self._llm = llm
        self._tokenizer = tokenizer
        self._held_out = held_out.few(QUESTIONS)
        self._every = every
        self._folder = context.work / "progress"
        self._folder.mkdir(exist_ok=True)

    def at(self, step: int, since: int) -> Mapping[str, float]:
        """At the first point of the curves after each `every` steps: ask, and say how well it went.

        since: steps since the last point.
        """
        if step // self._every == (step - since) // self._every:
            return {}
        training = self._llm.model.training
        evaluation = evaluate(self._llm, self._tokenizer, self._held_out, adaptive=True)
        self._llm.model.train(training)
        if process_rank() == 0:
            self._keep(step, [asked.mask for asked in evaluation.asked])
        return {"sampled_giou": evaluation.figures("sampled")["sampled_giou"]}

    def save_picture(self) -> None:
        """pictures/progress.png, where anything was asked."""
        kept = sorted(self._folder.glob("*.npz"))
        if kept:
            masks = {int(path.stem): list(np.load(path).values()) for path in kept}
            save_progress(self._context, self._held_out, masks)

    def _keep(self, step: int, masks: list[NDArray[np.bool_]]) -> None:
        path = self._folder / f"{step:08}.npz"
        replace_atomically(path, lambda new: _write(new, masks))


def _write(path: Path, masks: list[NDArray[np.bool_]]) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, *masks)
