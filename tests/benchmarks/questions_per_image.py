"""Several questions on one image: encoded once, read once and answered in one batch, against one by one.

Each answer is one mask. One by one means that the image is encoded and read for every question. Between the two:
the questions in one batch, each with the image encoded and read for itself.
"""

from alto_models.altollm.answering import AltoLLM, Picture
from alto_models.altollm.generation import Questions, Sampling
from tests.benchmarks.harness import arguments, interleaved, machine, milliseconds, publish, ratio, table
from tests.benchmarks.language_models import (
    REDUCED,
    SMALL,
    LanguageModelSize,
    answer_masks,
    mask_prompts,
    pictures,
    untrained,
)

QUESTIONS = 8


def asked(
    llm: AltoLLM, picture: Picture, prompts: list[list[int]], longest: int, images: int
) -> list[list[int]]:
    """Answers to prompts on one picture, encoded `images` times: once for all of them, or once for each."""
    image = llm.encode_images([picture] * images)
    questions = Questions(
        image=image,
        prefixes=llm.prefixes(image),
        image_of=[place % images for place in range(len(prompts))],
        prompts=prompts,
        max_lengths=[longest] * len(prompts),
    )
    return answer_masks(llm, questions, Sampling())


def answer_times(size: LanguageModelSize, count: int, repeats: int) -> dict[str, float]:
    """Processor seconds a question."""
    llm, (picture,), longest = untrained(size), pictures(1), size.masks.max_length
    prompts = mask_prompts(llm, count)
    seconds = interleaved(
        {
            "one by one": lambda: [asked(llm, picture, [prompt], longest, 1) for prompt in prompts],
            "in one batch": lambda: asked(llm, picture, prompts, longest, count),
            "in one batch, image shared": lambda: asked(llm, picture, prompts, longest, 1),
        },
        repeats,
    )
    return {name: time / count for name, time in seconds.items()}


def main() -> None:
    options = arguments(__doc__, "questions_per_image", repeats=5).parse_args()
    rows, names = [], []
    for size in (REDUCED, SMALL):
        times = answer_times(size, QUESTIONS, options.repeats)
        alone, batched, shared = times.values()
        names = list(times)
        factors = [ratio(batched, alone), ratio(shared, batched), ratio(shared, alone)]
        rows.append([size.name, *map(milliseconds, times.values()), *factors])
    columns = ["ms a question", *names, "factor of batching", "factor of sharing", "factor together"]
    intro = f"{QUESTIONS} questions on one image, median of {options.repeats} ({machine()}):"
    publish("questions_per_image", f"{intro}\n\n{table(columns, rows)}", options.write)


if __name__ == "__main__":
    main()
