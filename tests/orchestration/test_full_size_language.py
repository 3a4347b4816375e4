"""The profiles' full-size language models, without their memory: published sizes, mask vocabulary, image tokens."""

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import InternVLForConditionalGeneration, PreTrainedTokenizerFast

from alto_models.altollm.network import image_embeddings
from alto_models.altollm.vocabulary import MaskVocabulary, add_mask_vocabulary, token_id
from alto_models.published.internvl_chat import InternVLChat
from tests.alto_models.published.internvl_sizes import INTERNVL2_5_1B, INTERNVL2_5_8B

CODES = 1024
SPECIAL = ["<img>", "</img>", "<IMG_CONTEXT>", "<ref>", "</ref>", "<|im_start|>", "<|im_end|>"]


def tokenizer_of(size: int) -> PreTrainedTokenizerFast:
    """A tokenizer with as many tokens as the published one."""
    words = [*SPECIAL, *map(str, range(size - len(SPECIAL)))]
    inner = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="0"))
    inner.add_special_tokens(SPECIAL)
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|im_end|>")


@pytest.mark.parametrize(
    ("published", "billions"),
    [pytest.param(INTERNVL2_5_1B, 0.938, id="single_gpu"), pytest.param(INTERNVL2_5_8B, 8.08, id="paper")],
)
def test_published_sizes_with_the_mask_vocabulary(published: InternVLChat, billions: float) -> None:
    tokenizer = tokenizer_of(published.llm_config.vocab_size)
    config = published.to_transformers(tokenizer, token_id(tokenizer, "<IMG_CONTEXT>"))
    with torch.device("meta"):
        model = InternVLForConditionalGeneration(config)
        before = model.num_parameters()
        assert before / 1e9 == pytest.approx(billions, abs=0.005)

        add_mask_vocabulary(tokenizer, CODES)
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)  # their mean needs values
        embedded = image_embeddings(model, torch.empty(1, 3, 448, 448))
    width = published.llm_config.hidden_size
    assert MaskVocabulary.of(tokenizer).size == CODES
    assert model.num_parameters() - before == 2 * width * (CODES + 2)  # and the start and the end of a mask
    assert embedded.shape == (1, config.image_seq_length, width) == (1, 256, width)
