"""A training step of the mask tokenizer in parts that can be timed alone: the published procedure and ours.

Shapes: I images, B masks (a multiple of I), M mask side, C channels of the image embedding, G mask patches a
side, L codes at full length.
"""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alto_models.published.pixel_decoder import Level, PixelDecoder
from alto_models.published.tokenizer import PublishedTokenizer
from alto_models.tokenizer.config import TokenizerConfig
from alto_models.tokenizer.length_predictor import keep_mask
from alto_models.tokenizer.model import MaskTokenizer
from alto_models.tokenizer.optimizer import build_optimizer
from alto_models.tokenizer.stage1 import draw_lengths
from tests.benchmarks.losses import our_loss
from tests.benchmarks.published_loss import published_loss
from tests.benchmarks.sizes import Size

COMMITMENT_WEIGHT = 0.01  # published
FULL_LENGTH_SHARE = 0.4  # ours; profile `small`
MAX_NORM = 1.0
WEIGHT_DECAY = 0.1


class Procedure(ABC):
    """The parts of a training step, in their order; the sum of both losses is what is minimised."""

    optimizer: torch.optim.Optimizer
    trained: list[nn.Parameter]

    def __init__(self) -> None:
        self._generator = torch.Generator().manual_seed(0)

    @abstractmethod
    def encode_image(self, images: Tensor) -> Tensor:
        """images (I, 3, S, S) in 0..1 -> (I, C, 4 G, 4 G)."""

    @abstractmethod
    def slots(self, masks: Tensor, image_embedding: Tensor) -> tuple[Tensor, Tensor]:
        """masks (B, 1, M, M) -> what the mask head reads, and the loss of the quantiser."""

    @abstractmethod
    def logits(self, slots: Tensor, image_embedding: Tensor) -> Tensor:
        """The mask head: (B, M, M)."""

    @abstractmethod
    def loss(self, logits: Tensor, masks: Tensor) -> Tensor:
        """(B, M, M) x (B, M, M) -> scalar."""

    def forward_backward(self, images: Tensor, masks: Tensor) -> None:
        embedding = self.encode_image(images)
        slots, quantizer_loss = self.slots(masks, embedding)
        loss = self.loss(self.logits(slots, embedding), masks.squeeze(1))
        (loss + quantizer_loss).backward()

    def update(self) -> None:
        nn.utils.clip_grad_norm_(self.trained, MAX_NORM)
        self.optimizer.step()


class Published(Procedure):
    """The published network with its loss and optimizer."""

    def __init__(self, network: PublishedTokenizer) -> None:
        super().__init__()
        self.network = network.train()
        self.network.pixel_encoder.requires_grad_(False)
        self.trained = [each for each in network.parameters() if each.requires_grad]
        self.optimizer = published_optimizer(network)

    def encode_image(self, images: Tensor) -> Tensor:
        return self.network.encode_image(images)

    def slots(self, masks: Tensor, image_embedding: Tensor) -> tuple[Tensor, Tensor]:
        network = self.network
        latents = network.encoder(masks, network.latent_tokens).latents
        picked = F.embedding(network.quantize.nearest(latents), network.quantize.entries())
        units = F.normalize(latents, dim=1).transpose(1, 2)
        quantizer_loss = F.mse_loss(picked, units.detach())
        quantizer_loss = quantizer_loss + COMMITMENT_WEIGHT * F.mse_loss(units, picked.detach())
        vectors = units + (picked - units).detach()
        longest = vectors.shape[1]
        lengths = torch.randint(1, longest + 1, (len(masks),), generator=self._generator)
        keep = keep_mask(lengths.to(masks.device), longest)
        per_image = network.decoder.project_image(image_embedding)
        per_mask = per_image.repeat_interleave(len(masks) // len(per_image), dim=0)
        return network.decoder(vectors * keep.unsqueeze(-1), per_mask), quantizer_loss

    def logits(self, slots: Tensor, image_embedding: Tensor) -> Tensor:
        return (self.network.pixel_decoder(slots).mean(dim=1) * 2 - 1) * 6

    def loss(self, logits: Tensor, masks: Tensor) -> Tensor:
        return published_loss(logits, masks)


class Ours(Procedure):
    """Our network with its loss and optimizer."""

    def __init__(self, model: MaskTokenizer) -> None:
        super().__init__()
        self.model = model.train()
        self.head: nn.Module = model.detokenizer.head
        self.optimizer = self._new_optimizer()
        self.trained = [each for group in self.optimizer.param_groups for each in group["params"]]
        # The de-tokenizer ends before its head, which is called (and timed) apart.
        _replace_head(model, _SlotsAsTheyAre())

    def _new_optimizer(self) -> torch.optim.Optimizer:
        return build_optimizer(self.model, WEIGHT_DECAY)

    def encode_image(self, images: Tensor) -> Tensor:
        return self.model.encode_image(images)

    def slots(self, masks: Tensor, image_embedding: Tensor) -> tuple[Tensor, Tensor]:
        encoding = self.model.encode(masks)
        longest = self.model.config.max_length
        lengths = draw_lengths(len(masks), longest, FULL_LENGTH_SHARE, self._generator).to(masks.device)
        return self.model.decode_vectors(encoding.vectors, lengths, image_embedding), encoding.quantizer_loss

    def logits(self, slots: Tensor, image_embedding: Tensor) -> Tensor:
        out: Tensor = self.head(slots, image_embedding)
        return out

    def loss(self, logits: Tensor, masks: Tensor) -> Tensor:
        return our_loss(logits, masks)


class PublishedOnOurTransformers(Ours):
    """The published head, loss and optimizer around our transformers, at sizes the published network cannot have."""

    def _new_optimizer(self) -> torch.optim.Optimizer:
        return published_optimizer(self.model)

    def loss(self, logits: Tensor, masks: Tensor) -> Tensor:
        return published_loss(logits, masks)


class _SlotsAsTheyAre(nn.Module):
    def forward(self, slots: Tensor, image_embedding: Tensor) -> Tensor:
        return slots


class _PublishedHead(nn.Module):
    """The published pixel decoder, without its finest level where masks have 8 pixels a patch and side."""

    NARROWEST = 32  # channels; its normalisation has 32 groups

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.grid = config.grid
        self.decoder = PixelDecoder(config.width, self.NARROWEST)
        if config.mask_size == 8 * config.grid:
            finest = Level(2 * self.NARROWEST, self.NARROWEST, upsample=False)
            self.decoder.up = nn.ModuleList([finest, *self.decoder.up[2:]])

    def forward(self, slots: Tensor, image_embedding: Tensor) -> Tensor:
        features = slots.transpose(1, 2).unflatten(2, (self.grid, self.grid))
        out: Tensor = (self.decoder(features).mean(dim=1) * 2 - 1) * 6
        return out


def _replace_head(model: MaskTokenizer, head: nn.Module) -> None:
    model.detokenizer.head = head  # type: ignore[assignment]


def published_optimizer(network: nn.Module) -> torch.optim.AdamW:
    trained = [each for each in network.parameters() if each.requires_grad]
    return torch.optim.AdamW(trained, lr=1e-5, betas=(0.99, 0.999), weight_decay=WEIGHT_DECAY)


def both_networks(size: Size) -> tuple[PublishedTokenizer | MaskTokenizer, MaskTokenizer]:
    """The published network (or ours with the published head) and ours; random weights, always the same."""
    torch.manual_seed(0)
    ours = MaskTokenizer(size.ours)
    if size.published is not None:
        return PublishedTokenizer(size.published), ours
    published = MaskTokenizer(size.ours)
    _replace_head(published, _PublishedHead(size.ours))
    return published, ours


def both_procedures(size: Size) -> tuple[Procedure, Procedure]:
    """The published procedure and ours."""
    published, ours = both_networks(size)
    if isinstance(published, PublishedTokenizer):
        return Published(published), Ours(ours)
    return PublishedOnOurTransformers(published), Ours(ours)
