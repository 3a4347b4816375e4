"""`mlflow models serve` under many clients, good ones and bad ones."""

import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alto_models.altollm.api import Segmenter
from tests.alto_models.altollm.tiny import picture
from tests.jobs.serving.model_server import post, request_body, served
from tests.jobs.serving.packed_example import packed_example

CLIENTS = 8
ROUNDS = 100  # of all requests below
EXPRESSIONS = ["the red star", "blue"]
FLAT = 64 * 2**20  # bytes that memory may move by in the second half


def png(image: Image.Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def bad_requests(photo: bytes) -> dict[str, bytes]:
    """What the answer must say -> request."""
    good = json.loads(request_body(photo, EXPRESSIONS))
    data = good["dataframe_split"]
    return {
        "more than 8192 pixels a side": request_body(png(Image.new("1", (20000, 20000))), EXPRESSIONS),
        "not a whole JPEG or PNG file": request_body(b"not an image", EXPRESSIONS),
        "the image: not a whole": request_body(b"", EXPRESSIONS),
        "valid JSON": b'{"dataframe_split": ',
        "takes 1 to 64 expressions, got 10000": request_body(photo, ["star"] * 10_000),
        "expression 1 is empty": request_body(photo, [" "]),
        "image": json.dumps(
            {**good, "dataframe_split": {**data, "columns": ["picture", "expressions"]}}
        ).encode(),
    }


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_thousand_good_and_bad_requests_of_eight_clients(tmp_path: Path) -> None:
    example = packed_example(tmp_path)
    segmenter = Segmenter.from_folders(example.altollm, example.tokenizer)
    images = [picture(seed, 40, 56) for seed in range(3)]
    expected = [
        [one.model_dump(mode="json") for one in segmenter.segment(image, EXPRESSIONS, max_tokens=2)]
        for image in images
    ]
    photos = [png(Image.fromarray(image)) for image in images]
    bad = bad_requests(photos[0])
    good = [request_body(photo, EXPRESSIONS, max_tokens=2) for photo in photos]
    requests = [(body, None) for body in good] + [(body, said) for said, body in bad.items()]
    order = np.random.default_rng(0).permutation(len(requests) * ROUNDS)

    with served(tmp_path, str(example.packed), tmp_path / "server.log") as server:

        def send(number: int) -> None:
            body, said = requests[number % len(requests)]
            status, answer = post(server.address, body)
            if said is None:
                (found,) = answer["predictions"]
                without_png = [{k: v for k, v in one.items() if k != "png"} for one in found["segmentations"]]
                assert (status, without_png) == (200, expected[number % len(requests)])
            else:
                assert 400 <= status < 500, (said, status, answer)
                assert said in answer["message"], answer

        with ThreadPoolExecutor(CLIENTS) as clients:
            list(clients.map(send, order[: len(order) // 2].tolist()))
            halfway = server.resident_bytes
            list(clients.map(send, order[len(order) // 2 :].tolist()))
            assert abs(server.resident_bytes - halfway) < FLAT
