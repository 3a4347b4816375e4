"""Figures other systems published for RefCOCO, gRefCOCO and ReasonSeg, in percent.

As their authors report them, under each author's own protocol and training data. They are context, not
opponents: none of them was measured by this pipeline, or on this pipeline's own scenes.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Peer:
    system: str
    mask_form: str
    refcoco: str
    grefcoco: str
    reasonseg: str
    source: str


PEERS = (
    Peer("HiMTok-8B", "32 tokens", "81.1 / 77.1 / 75.8", "–", "val 60.7, test 60.8", "paper on HiMTok"),
    Peer("HiMTok-8B, fine-tuned", "32 tokens", "85.0 / 79.7 / 80.0", "–", "–", "paper on HiMTok"),
    Peer("SAMTok-3B, RL", "2 tokens (16 bits)", "–", "val gIoU 79.4, N-acc 81.5", "–", "paper on SAMTok"),
    Peer("ContourVLA-3B", "contour", "–", "val gIoU 83.5, cIoU 72.3", "–", "paper on ContourVLA"),
    Peer(
        "SegCompass-13B",
        "heat maps",
        "86.3 / 80.5 / 84.0",
        "val 76.8 / 72.2",
        "test 64.2",
        "paper on SegCompass",
    ),
    Peer(
        "ARGenSeg-8B, fine-tuned",
        "680 tokens in 10 steps",
        "86.3 / 82.3 / 81.7",
        "mean 73.6 / 72.1",
        "–",
        "paper on ARGenSeg",
    ),
    Peer("X-SAM 3.8B", "[SEG] + decoder", "85.1 / 78.0 / 83.8", "–", "–", "paper on X-SAM"),
    Peer("Text4Seg++ 7B", "run-length text", "81.6 / 76.9 / 78.2", "–", "–", "paper on Text4Seg++"),
    Peer("Sa2VA-8B", "[SEG] + SAM 2", "81.6 / 76.2 / 78.7", "–", "–", "paper on Sa2VA"),
)
