"""Packs an ALToLLM and its mask tokenizer as one MLflow model that runs wherever its requirements are installed."""

import io
import shutil
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.models.signature import ModelSignature

ALTOLLM_CHECKPOINT, TOKENIZER_CHECKPOINT = "altollm", "tokenizer"  # names of artifacts
CODE = ("alto_models", "data_contracts")  # packages that the served model imports
# Distributions that they import in turn, and what serves them.
REQUIREMENTS = (
    "huggingface_hub",
    "mlflow",
    "numpy",
    "pandas",
    "pillow",
    "pyarrow",
    "pycocotools",
    "pydantic",
    "safetensors",
    "scipy",
    "tokenizers",
    "torch",
    "transformers",
)


def package_segmenter(altollm: Path, tokenizer: Path, folder: Path) -> None:
    """Write the new folder `folder`: MLmodel, code, and copies of both checkpoint folders."""
    import mlflow.pyfunc

    root = Path(__file__).parents[2]
    with TemporaryDirectory() as scratch:
        for name in CODE:
            shutil.copytree(root / name, Path(scratch, name), ignore=shutil.ignore_patterns("__pycache__"))
        mlflow.pyfunc.save_model(
            path=str(folder),
            python_model=str(Path(__file__).with_name("segmenter.py")),
            artifacts={ALTOLLM_CHECKPOINT: str(altollm), TOKENIZER_CHECKPOINT: str(tokenizer)},
            code_paths=[str(Path(scratch, name)) for name in CODE],
            signature=_signature(),
            input_example=_example(),
            pip_requirements=[f"{name}=={version(name)}" for name in REQUIREMENTS],
        )


def _example() -> "pd.DataFrame":
    """A request, which MLflow keeps as `serving_input_example.json`."""
    import pandas as pd
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (96, 64), "white")
    ImageDraw.Draw(image).ellipse((16, 8, 64, 56), fill="red")
    data = io.BytesIO()
    image.save(data, "PNG")
    return pd.DataFrame({"image": [data.getvalue()], "expressions": [["the red circle"]]})


def is_package(folder: Path) -> bool:
    return (folder / "MLmodel").is_file()


def checkpoint_in(package: Path, name: str) -> Path:
    """Where a package keeps ALTOLLM_CHECKPOINT or TOKENIZER_CHECKPOINT."""
    from mlflow.models import Model

    return package / Model.load(str(package)).flavors["python_function"]["artifacts"][name]["path"]


def _signature() -> "ModelSignature":
    from mlflow.models.signature import ModelSignature
    from mlflow.types.schema import Array, ColSpec, DataType, ParamSchema, ParamSpec, Schema

    return ModelSignature(
        inputs=Schema([ColSpec(DataType.binary, "image"), ColSpec(Array(DataType.string), "expressions")]),
        params=ParamSchema(
            [
                ParamSpec("full_length", DataType.boolean, False),
                ParamSpec("max_tokens", DataType.long, None),
            ]
        ),
    )
