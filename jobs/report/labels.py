"""What systems, prompt modes and slices are called in the report."""

from dataclasses import dataclass

from jobs.benchmarking.results import ADAPTIVE, FULL, NO_MODE


@dataclass(frozen=True)
class Label:
    name: str
    explanation: str


SYSTEMS = {
    "altollm_grpo": Label("ALToLLM after GRPO", "the trained model: fine-tuned, then reinforced"),
    "altollm_sft": Label("ALToLLM after SFT", "supervised fine-tuning only; where GRPO started"),
    "untrained": Label(
        "Untrained model", "the same architecture with random weights, made to write decodable answers"
    ),
    "text_ignored": Label(
        "Text ignored", "the trained model, asked for something else in the same image than it is scored on"
    ),
    "mean_mask": Label(
        "Mean mask", "one constant mask, cut from the mean of the benchmark's own true masks (generous)"
    ),
    "largest_object": Label("Largest object", "the true outline of the largest annotated object (generous)"),
    "random_object": Label("Random object", "the true outline of an object drawn at random (generous)"),
    "always_yes": Label("Always yes", "answers “yes” to every question"),
    "nothing": Label("Nothing", "says “no such object” every time"),
}

MODES = {FULL: "full length", ADAPTIVE: "adaptive", NO_MODE: "–"}

DIMENSIONS = {
    "category": "Category of the target",
    "size": "Share of the image covered",
    "objects": "Number of objects meant",
}

REASONS = {
    "best": Label("Best", "highest IoU"),
    "typical": Label("Typical", "IoU closest to the median"),
    "worst": Label("Worst", "lowest IoU"),
    "longest": Label("Longest", "most mask tokens"),
    "shortest": Label("Shortest", "fewest mask tokens"),
}


def system_label(system: str) -> Label:
    """Systems without an entry here go by their own name."""
    return SYSTEMS.get(system, Label(system.replace("_", " ").capitalize(), ""))
