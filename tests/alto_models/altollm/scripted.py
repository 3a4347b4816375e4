"""An untrained model that answers in form: the expression says how, codes are still the model's own."""

from collections.abc import Sequence

import torch
from torch import Tensor

from alto_models.altollm.answering import AltoLLM
from alto_models.altollm.conversation import NO_TARGET_ANSWER
from alto_models.altollm.generation import Questions, Sampling
from alto_models.altollm.grammar import MaskGrammar, State


class ScriptedGrammar(MaskGrammar):
    """Outside masks, row b says the tokens of scripts[b] one after the other, the last one for ever."""

    scripts: Sequence[list[int]]

    def restrict(self, logits: Tensor, state: Tensor) -> Tensor:
        restricted = super().restrict(logits, state)
        for row in (state == State.TEXT).nonzero()[:, 0].tolist():
            script = self.scripts[row]
            restricted[row] = float("-inf")
            restricted[row, script.pop(0) if len(script) > 1 else script[0]] = 0.0
        return restricted


class ScriptedLLM(AltoLLM):
    """Answers `blue` with a refusal, `ring` without an end, everything else with a mask."""

    def generate(self, questions: Questions, sampling: Sampling) -> list[list[int]]:
        blue, ring = self._ids("blue")[0], self._ids("ring")[0]
        start, end = self.vocabulary.start, self.turn_end
        self.grammar = ScriptedGrammar(
            self.tokenizer, self.vocabulary, self.model.config.text_config.vocab_size
        )
        self.grammar.scripts = [
            [*self._ids(NO_TARGET_ANSWER), end]
            if blue in ids
            else [start, ring]
            if ring in ids
            else [start, end]
            for ids in questions.prompts
        ]
        return super().generate(questions, sampling)

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]


def scripted(llm: AltoLLM) -> ScriptedLLM:
    with torch.no_grad():  # untrained, it would answer every expression with the same codes
        for parameter in llm.model.model.language_model.parameters():
            parameter.mul_(3)
    return ScriptedLLM(llm.model, llm.tokenizer)
