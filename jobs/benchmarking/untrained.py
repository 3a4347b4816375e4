"""The architecture without its training, as a baseline."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from alto_models.altollm.answering import AltoLLM, Answer, Picture
from alto_models.altollm.generation import Sampling, generate


class UntrainedAltoLLM:
    """A model of the same architecture with random weights, forced to answer every question with a mask.

    Left to itself it would hardly ever begin one, and a baseline that cannot be decoded shows nothing.
    """

    def __init__(self, trained: AltoLLM, seed: int) -> None:
        from transformers import InternVLForConditionalGeneration

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = InternVLForConditionalGeneration(trained.model.config)
        self._llm = AltoLLM(network.eval().to(trained.model.device), trained.tokenizer)

    def answer(self, images: Sequence[Picture], prompts: Sequence[str], *, max_length: int) -> list[Answer]:
        """As `AltoLLM.answer`, with the mask begun in the prompt."""
        llm = self._llm
        distinct = {id(image): image for image in images}
        places = {name: place for place, name in enumerate(distinct)}
        start = llm.vocabulary.start
        questions = llm.questions(
            llm.encode_images(list(distinct.values())),
            prompts,
            max_length=max_length,
            image_of=[places[id(image)] for image in images],
            begin_masks=True,
        )
        generated = generate(
            llm.model,
            llm.grammar,
            questions,
            turn_end=llm.turn_end,
            sampling=Sampling(),
            max_text_tokens=1,
        )
        # What it would babble after the mask is cut off, so that no answer ever ends properly.
        return [replace(llm.read([start, *ids]), malformed=False) for ids in generated]
