"""A converted InternVL-Chat checkpoint is where SFT starts from, and GRPO goes on: base_weights to answers."""

from pathlib import Path

import pytest

from alto_models.altollm.answering import AltoLLM
from alto_models.altollm.conversation import INTERNVL_TEMPLATE
from alto_models.published.convert_altollm import convert_altollm
from alto_models.weight_files import INDEX_FILE, weights_sha256
from data_contracts.errors import InputError
from jobs import altollm_grpo, altollm_sft, base_weights
from tests.alto_models.altollm.tiny import picture
from tests.alto_models.published.internvl_chat_folder import network, write_folder
from tests.alto_models.tokenizer.tiny import TINY
from tests.jobs.tokenized_records import write_tokenized_records
from tests.jobs.tokenizer_example import context, parameters

GOLDEN = Path(__file__).parents[3] / "shared" / "golden" / "internvl_tiny"
needs_golden = pytest.mark.skipif(
    not GOLDEN.is_dir(), reason="../shared is not there: no reference checkpoint"
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_tokenized_records(tmp_path_factory.mktemp("inputs"))


def base_of(published: Path, folder: Path) -> Path:
    """`published`, converted and taken up by the stage base_weights."""
    convert_altollm(published, folder / "converted")
    source = {
        "folder": str(folder / "converted"),
        "sha256": weights_sha256(folder / "converted"),
        "licence": "MIT",
    }
    run = context(folder, "base_weights")
    base_weights.run(base_weights.Config.model_validate({"altollm": source}), run)
    return run.output


@pytest.mark.parametrize(
    "language_model", ["internlm2", "qwen2", pytest.param("reference", marks=needs_golden)]
)
def test_sft_and_grpo_go_on_from_a_converted_checkpoint(
    language_model: str, inputs: dict[str, Path], tmp_path: Path
) -> None:
    published = GOLDEN
    if language_model != "reference":
        published = write_folder(tmp_path / "published", network(language_model), shards=3)
    base = base_of(published, tmp_path)
    assert (base / "altollm" / INDEX_FILE).is_file() == (language_model != "reference")

    sft = context(tmp_path, "altollm_sft", **inputs, base_weights=base)
    altollm_sft.run(altollm_sft.Config.model_validate(parameters("altollm_sft") | {"steps": 2}), sft)
    grpo = context(tmp_path, "altollm_grpo", **inputs, altollm_sft=sft.output)
    report = altollm_grpo.run(
        altollm_grpo.Config.model_validate(parameters("altollm_grpo") | {"steps": 1}), grpo
    )

    assert report.figures["val_questions"] == 1
    for stage in (sft, grpo):
        llm = AltoLLM.load(stage.output)
        assert llm.template == INTERNVL_TEMPLATE
        assert llm.vocabulary.size == TINY.codebook_size
        assert llm.model.get_input_embeddings().num_embeddings == len(llm.tokenizer)
        (prefix,) = llm.prefixes(llm.encode_images([picture(1)]))
        assert len(prefix) > prefix.count(llm.model.config.image_token_id) == 4


def test_a_changed_shard_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "published", network("qwen2"), shards=3)
    convert_altollm(tmp_path / "published", tmp_path / "converted")
    checksum = weights_sha256(tmp_path / "converted")
    shard = max((tmp_path / "converted").glob("model-*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"\1")
    source = {"folder": str(tmp_path / "converted"), "sha256": checksum, "licence": "MIT"}
    with pytest.raises(InputError, match="checksum"):
        base_weights.run(
            base_weights.Config.model_validate({"altollm": source}), context(tmp_path, "base_weights")
        )
