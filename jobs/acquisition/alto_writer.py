"""Writes sample scenes in ALToLLM's training layout: conversations jsonl, images, masks, `data_seg.json`."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from jobs.acquisition.encoding import jpeg
from jobs.acquisition.sampled import SampledScene

PLACEHOLDERS = 32  # mask tokens an answer holds before a tokenizer has filled them in


def write_alto_jsonl(scenes: Iterable[SampledScene], output: Path, name: str) -> None:
    """One line an expression; every second one asks for the adaptive length. Each split is one jsonl."""
    for folder in ("images", "masks", "anns"):
        (output / folder).mkdir()
    lines: dict[str, list[str]] = {}
    for sampled in scenes:
        image = f"images/{sampled.number}.jpg"
        (output / image).write_bytes(jpeg(sampled.scene.image))
        for targets, expressions in sampled.by_targets().items():
            mask = f"masks/{sampled.number}_{'_'.join(map(str, targets))}.png"
            merged = np.logical_or.reduce([sampled.scene.objects[target].mask for target in targets])
            Image.fromarray(merged.astype(np.uint8) * 255).save(output / mask)
            split_lines = lines.setdefault(sampled.split, [])
            for expression in expressions:
                split_lines.append(_line(image, mask, expression.text, adaptive=len(split_lines) % 2 == 1))
    index = {}
    for split, split_lines in lines.items():
        annotation = f"anns/{split}.jsonl"
        (output / annotation).write_text("".join(line + "\n" for line in split_lines))
        index[split] = {
            "root": name,
            "annotation": f"{name}/{annotation}",
            "data_augment": False,
            "repeat_time": 1,
            "length": len(split_lines),
        }
    (output / "data_seg.json").write_text(json.dumps(index, indent=2) + "\n")


def _line(image: str, mask: str, text: str, adaptive: bool) -> str:
    ending = " by adaptive length." if adaptive else "."
    tokens = ("<TOK_1>" if adaptive else "<TOK_0>") * PLACEHOLDERS
    conversations = [
        {"from": "human", "value": f"<image>\nSegment <ref>{text}</ref>{ending}"},
        {"from": "gpt", "value": f"The mask appears at <ALTo_Start>{tokens}<ALTo_End>."},
    ]
    return json.dumps({"image": image, "mask": mask, "conversations": conversations})
