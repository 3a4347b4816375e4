"""SAM's and TiTok's weights become a folder to start from: nothing lost, nothing taken for something else."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from typer.testing import CliRunner

from alto_models.checkpoint import load_tensors, save_checkpoint
from alto_models.published.starting_weights import convert_starting_weights, from_sam, from_titok
from alto_models.published.titok_blocks import Block
from alto_models.tokenizer.config import TokenizerConfig
from alto_models.tokenizer.model import MaskTokenizer
from alto_models.tokenizer.starting_weights import load_starting_weights
from data_contracts.errors import InputError
from orchestration import convert
from tests.alto_models.published.sam_and_titok import SAM, sam_tensors, titok_tensors

SIZES = TokenizerConfig(
    mask_size=32,
    grid=2,
    max_length=4,
    width=128,
    heads=2,
    encoder_layers=2,
    decoder_layers=1,
    codebook_size=16,
    code_width=4,
    head_width=8,
    pixel_encoder=SAM,
)


Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def save_as(name: str, tensors: dict[str, Tensor]) -> Path:
        torch.save(tensors, tmp_path / name)
        return tmp_path / name

    return save_as


def test_every_tensor_arrives_unchanged_and_the_rest_stays_as_initialised(save: Save, tmp_path: Path) -> None:
    sam, titok = save("sam.pth", sam_tensors()), save("titok.bin", titok_tensors())
    convert_starting_weights(sam, titok, tmp_path / "start")
    torch.manual_seed(0)
    fresh = MaskTokenizer(SIZES).state_dict()
    torch.manual_seed(0)
    model = MaskTokenizer(SIZES)
    load_starting_weights(model, tmp_path / "start")
    filled = model.state_dict()
    published = sam_tensors() | titok_tensors()
    assert torch.equal(
        filled["pixel_encoder.sam.vision_encoder.layers.1.attn.rel_pos_h"],
        published["image_encoder.blocks.1.attn.rel_pos_h"],
    )
    assert torch.equal(filled["detokenizer.transformer.norm.weight"], published["decoder.ln_post.weight"])
    given = load_tensors(tmp_path / "start")
    for name, tensor in filled.items():
        assert torch.equal(tensor, given.get(name, fresh[name])), name
    untouched = {name.split(".")[0] for name in filled.keys() - given.keys()}
    assert untouched == {
        "no_image",
        "encoder",
        "project",
        "quantizer",
        "length_predictor",
        "detokenizer",
    }


def test_blocks_compute_what_titoks_compute() -> None:
    """With TiTok's tensors, a block of ours is a block of TiTok's, hidden tokens included."""
    published = titok_tensors()
    model = MaskTokenizer(SIZES)
    weights = from_titok(published, "titok")
    model.load_state_dict(weights.tensors, strict=False)
    block = Block(128)
    prefix = "encoder.transformer.1."
    block.load_state_dict(
        {name.removeprefix(prefix): each for name, each in published.items() if name.startswith(prefix)}
    )
    x = torch.randn(2, 7, 128, generator=torch.Generator().manual_seed(2))
    seen = torch.ones(7, 7, dtype=torch.bool).tril()
    with torch.no_grad():
        torch.testing.assert_close(model.encoder.transformer.blocks[1](x, seen), block(x, ~seen))


def test_sam_alone_leaves_the_choice_of_transformers_open(save: Save, tmp_path: Path) -> None:
    convert_starting_weights(save("sam.pth", sam_tensors()), None, tmp_path / "start")
    other = TokenizerConfig.model_validate(SIZES.model_dump() | {"width": 64, "encoder_layers": 1})
    model = MaskTokenizer(other)
    load_starting_weights(model, tmp_path / "start")
    assert torch.equal(
        model.pixel_encoder.state_dict()["sam.vision_encoder.pos_embed"],
        sam_tensors()["image_encoder.pos_embed"],
    )


def test_safetensors_are_read_too(save: Save, tmp_path: Path) -> None:
    save_file(titok_tensors(), tmp_path / "titok.safetensors")
    sam, pickled = save("sam.pth", sam_tensors()), save("titok.bin", titok_tensors())
    for name, titok in (("first", tmp_path / "titok.safetensors"), ("second", pickled)):
        convert_starting_weights(sam, titok, tmp_path / name)
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    (tmp_path / "titok.safetensors").write_bytes(b"cut")
    with pytest.raises(InputError, match=r"titok\.safetensors: not a readable safetensors file"):
        convert_starting_weights(sam, tmp_path / "titok.safetensors", tmp_path / "third")


class TestFilesThatDoNotFit:
    @pytest.mark.parametrize("name", ["image_encoder.neck.0.weight", "image_encoder.blocks.0.norm1.bias"])
    def test_sam_without_a_tensor(self, name: str) -> None:
        tensors = sam_tensors()
        del tensors[name]
        with pytest.raises(InputError, match=f"sam.pth: missing tensor {name}"):
            from_sam(tensors, "sam.pth")

    def test_sam_with_a_tensor_too_many(self) -> None:
        with pytest.raises(InputError, match="unexpected tensor image_encoder.extra"):
            from_sam(sam_tensors() | {"image_encoder.extra": torch.zeros(1)}, "sam.pth")

    def test_sam_of_other_shapes(self) -> None:
        with pytest.raises(InputError, match="tensors of unknown shapes; this is not SAM"):
            from_sam(sam_tensors() | {"image_encoder.pos_embed": torch.zeros(3)}, "sam.pth")

    @pytest.mark.parametrize("name", ["decoder.ln_post.bias", "encoder.transformer.1.attn.in_proj_weight"])
    def test_titok_without_a_tensor(self, name: str) -> None:
        tensors = titok_tensors()
        del tensors[name]
        with pytest.raises(InputError, match=f"titok.bin: missing tensor {name}"):
            from_titok(tensors, "titok.bin")

    def test_something_that_titok_has_not(self) -> None:
        with pytest.raises(InputError, match=r"unexpected tensor decoder\.text_guidance;"):
            from_titok(titok_tensors() | {"decoder.text_guidance": torch.zeros(1)}, "titok.bin")

    def test_titok_of_two_widths(self) -> None:
        with pytest.raises(InputError, match="encoder and decoder have widths 128 and 64"):
            from_titok(titok_tensors(decoder_width=64), "titok.bin")

    def test_nothing_is_written(self, save: Save, tmp_path: Path) -> None:
        sam, titok = save("sam.pth", sam_tensors()), save("titok.bin", {"encoder.x": torch.zeros(1)})
        with pytest.raises(InputError, match=r"titok\.bin: missing tensor encoder\.class_embedding"):
            convert_starting_weights(sam, titok, tmp_path / "start")
        assert not (tmp_path / "start").exists()


class TestLoading:
    @pytest.fixture
    def start(self, save: Save, tmp_path: Path) -> Path:
        sam, titok = save("sam.pth", sam_tensors()), save("titok.bin", titok_tensors())
        convert_starting_weights(sam, titok, tmp_path / "start")
        return tmp_path / "start"

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"encoder_layers": 1}, "made for encoder_layers 2, the parameters say 1"),
            ({"heads": 4}, "made for heads 2, the parameters say 4"),
            ({"pixel_encoder": SAM.model_copy(update={"global_layers": ()})}, "made for pixel_encoder"),
        ],
    )
    def test_other_sizes_are_named(self, change: dict[str, object], message: str, start: Path) -> None:
        model = MaskTokenizer(TokenizerConfig.model_validate(SIZES.model_dump() | change))
        with pytest.raises(InputError, match=message):
            load_starting_weights(model, start)

    def test_a_module_given_in_part(self, start: Path) -> None:
        tensors = load_tensors(start)
        del tensors["encoder.transformer.norm.bias"]
        save_file(tensors, start / "model.safetensors")
        with pytest.raises(InputError, match=r"encoder\.transformer: 1 missing tensor \(norm\.bias\)"):
            load_starting_weights(MaskTokenizer(SIZES), start)

    @pytest.mark.parametrize("name", ["encoder.latents", "encoder.other", "other.weight"])
    def test_a_tensor_outside_the_modules(self, name: str, start: Path) -> None:
        save_file(load_tensors(start) | {name: torch.zeros(1)}, start / "model.safetensors")
        with pytest.raises(InputError, match="missing tensors"):
            load_starting_weights(MaskTokenizer(SIZES), start)

    def test_no_tensor_at_all(self, start: Path) -> None:
        save_file({}, start / "model.safetensors")
        with pytest.raises(InputError, match="missing tensors"):
            load_starting_weights(MaskTokenizer(SIZES), start)

    def test_a_whole_tokenizer(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        first, second = MaskTokenizer(SIZES), MaskTokenizer(SIZES)
        save_checkpoint(tmp_path / "model", SIZES, first.state_dict())
        load_starting_weights(second, tmp_path / "model")
        for name, tensor in second.state_dict().items():
            assert torch.equal(tensor, first.state_dict()[name]), name

    def test_another_kind_of_model(self, start: Path) -> None:
        (start / "config.json").write_text('{"kind": "published_alto"}')
        with pytest.raises(InputError, match=r"config\.json: kind is no size of a mask tokenizer"):
            load_starting_weights(MaskTokenizer(SIZES), start)


def test_command_line(save: Save, tmp_path: Path) -> None:
    sam, titok = save("sam.pth", sam_tensors()), save("titok.bin", titok_tensors())
    arguments = ["tokenizer", str(sam), str(tmp_path / "start"), "--titok", str(titok)]
    done = CliRunner().invoke(convert.app, arguments)
    assert done.exit_code == 0, done.output
    tensors = load_tensors(tmp_path / "start")
    assert f"start: {len(tensors)} tensors, 22 not needed" in done.output.replace("\n", "")
    assert hashlib.sha256((tmp_path / "start" / "model.safetensors").read_bytes()).hexdigest() in done.output


def test_titok_goes_with_sam_only(save: Save, tmp_path: Path) -> None:
    file = save("alto.pth", titok_tensors())
    with pytest.raises(InputError, match="--titok goes with the weights of SAM"):
        convert.tokenizer(file, tmp_path / "start", titok=file)
