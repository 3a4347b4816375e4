"""The served model. MLflow keeps this file beside the checkpoints and runs it to load them: nothing is pickled.

It may import what `jobs/serving/package.py` packs with it, and nothing else of ours.
"""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel, PythonModelContext

from alto_models.altollm.api import Segmentation, Segmenter
from alto_models.data.files import encode_mask, image_of_bytes
from data_contracts.errors import InputError

MAX_IMAGES = 16  # of a request


class ServedSegmenter(PythonModel):
    """Images with expressions to masks; what one image may ask for is limited by SegmentLimits."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the two checkpoints of the package; on the GPU where there is one."""
        folders = context.artifacts
        self.segmenter = Segmenter.from_folders(Path(folders["altollm"]), Path(folders["tokenizer"]))

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """One answer a row: its image (JPEG or PNG bytes) and expressions, each of which gets a mask.

        params: full_length (bool) and max_tokens (int), as in Segmenter.segment. Raises MlflowException, which
        the server answers with status 400, naming the row (from 1) and what to change.
        """
        wanted = params or {}
        if len(model_input) > MAX_IMAGES:
            raise _refused(f"{len(model_input)} images in one request, at most {MAX_IMAGES}: send several")
        answers = []
        for number, (image, expressions) in enumerate(
            zip(model_input["image"], model_input["expressions"], strict=True), start=1
        ):
            try:
                answers.append(self._answer(image, list(expressions), wanted))
            except InputError as error:
                raise _refused(f"row {number}: {error}") from None
        return answers

    def _answer(self, image: bytes, expressions: Sequence[str], wanted: dict[str, Any]) -> dict[str, Any]:
        # What is cheap to refuse comes before an image is decoded.
        max_tokens = wanted.get("max_tokens")
        self.segmenter.check(expressions, max_tokens)
        found = self.segmenter.segment(
            image_of_bytes(image),
            expressions,
            adaptive=not wanted.get("full_length", False),
            max_tokens=max_tokens,
        )
        return {"segmentations": [_as_json(one) for one in found]}


def _as_json(found: Segmentation) -> dict[str, Any]:
    """Fields of Segmentation, and `png`: base64 of an 8-bit grey PNG of 0 and 255."""
    return {**found.model_dump(mode="json"), "png": base64.b64encode(encode_mask(found.mask)).decode("ascii")}


def _refused(message: str) -> MlflowException:
    return MlflowException(message, error_code=INVALID_PARAMETER_VALUE)


mlflow.models.set_model(ServedSegmenter())
