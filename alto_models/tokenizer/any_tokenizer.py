"""The mask tokenizer in a folder, be it one trained here or a converted published one."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from alto_models.checkpoint import load_config
from alto_models.published.tokenizer import PublishedTokenizer, load_published_tokenizer
from alto_models.tokenizer.model import MaskTokenizer, load_tokenizer


class _Kind(BaseModel):
    """What `config.json` says of the network; nothing for one that we train."""

    kind: Literal["published_alto"] | None = None


def load_any_tokenizer(folder: Path) -> MaskTokenizer | PublishedTokenizer:
    """The tokenizer of a folder, in evaluation mode. Raises InputError for a bad folder."""
    published = load_config(folder, _Kind).kind is not None
    return load_published_tokenizer(folder) if published else load_tokenizer(folder)
