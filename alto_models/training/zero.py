"""Training on DeepSpeed's ZeRO: optimizer state, gradients and weights shared out over the processes.

Rajbhandari et al., "ZeRO: Memory optimizations toward training trillion parameter models" (2020). Stage 1 shares out
the optimizer's state, 2 the gradients as well, 3 the weights, too. Checkpoints are DeepSpeed's own; one written by
another number of processes is converted to its universal form first.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.optim import Optimizer

from alto_models.checkpoint import replace_atomically
from alto_models.training.engine import Figures, StepResult
from alto_models.training.muon import Muon
from alto_models.training.precision import Precision, autocast
from alto_models.training.processes import communication_backend, process_count, process_rank
from alto_models.training.resume import random_state, set_random_state
from data_contracts.errors import InputError

LATEST = "latest.json"
PROGRESS = "progress.pt"

# What the stage's parameters decide; a second place for them would be ignored or contradict them.
DECIDED_ELSEWHERE = (
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "gradient_clipping",
    "optimizer",
    "scheduler",
    "bf16",
    "fp16",
)


class _Latest(BaseModel):
    """The last whole checkpoint: its folder, and how many processes wrote it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    processes: int

    @property
    def tag(self) -> str:
        return f"step_{self.step}"

    @property
    def universal_tag(self) -> str:
        return f"{self.tag}_universal"


def read_settings(path: Path) -> dict[str, Any]:
    """A DeepSpeed configuration without what the stage's parameters decide. Raises InputError."""
    try:
        settings = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: not a readable DeepSpeed configuration ({error})") from error
    if decided := [name for name in DECIDED_ELSEWHERE if name in settings]:
        raise InputError(f"{path}: take out {', '.join(decided)}, the stage's parameters decide that")
    return settings


class ZeroEngine:
    """Trains `model` on ZeRO. Until `finish`, its parameters belong to DeepSpeed.

    settings: path of the JSON file. The optimizer has to work on single numbers: ZeRO shares out flattened weights.
    Raises InputError for settings that cannot be read or combined.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        forward: Callable[[int], StepResult],
        *,
        settings: Path,
        folder: Path,
        passes: int,
        precision: Precision,
        max_norm: float,
    ) -> None:
        if isinstance(optimizer, Muon):
            raise InputError(
                "DeepSpeed shares out flattened weights, and Muon needs whole matrices: set optimizer to adamw"
            )
        if precision == "fp16":
            raise InputError("with DeepSpeed, precision is fp32 or bf16")
        self._folder = folder
        self._model = model
        self._latest = _read_latest(folder)
        self._other_processes = self._latest is not None and self._latest.processes != process_count()
        self._step = _Step(model, forward, precision)
        # Casting to bfloat16 would round what is not trained; an optimizer keeps float32 of the rest.
        self._frozen = {
            id(each): each.detach().cpu().clone() for each in model.parameters() if not each.requires_grad
        }
        config = read_settings(settings) | {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": passes,
            "gradient_clipping": max_norm,
            "bf16": {"enabled": precision == "bf16"},
            "checkpoint": {"load_universal": self._other_processes},
            "zero_force_ds_cpu_optimizer": False,
            "zero_allow_untested_optimizer": True,
        }
        self._engine = _initialize(self._step, optimizer, config)
        self.optimizer = self._engine.optimizer
        self._unfinished = False

    def run_pass(self, step: int) -> StepResult:
        if self._unfinished:
            self._engine.step()  # closes the pass before: with more to come, that moves nothing
        self._engine.backward(self._engine(step))
        self._unfinished = True
        return self._step.taken()

    def update(self, step: int) -> Tensor:
        self._engine.step()
        self._unfinished = False
        norm = self._engine.get_global_grad_norm()  # None where no gradient has ever been finite
        return torch.as_tensor(
            torch.nan if norm is None else norm, dtype=torch.float32, device=self._engine.device
        )

    def save(self, done: int, recent: Sequence[Figures]) -> None:
        latest = _Latest(step=done, processes=process_count())
        if process_rank() == 0:
            shutil.rmtree(self._folder / latest.tag, ignore_errors=True)
        dist.barrier()
        # `universal_checkpoint_info` is what the conversion to a universal checkpoint asks for; ZeRO alone needs none.
        client_state: dict[str, Any] = {"universal_checkpoint_info": {}}
        self._engine.save_checkpoint(str(self._folder), latest.tag, client_state, save_latest=False)
        dist.barrier()
        if process_rank() > 0:
            return
        progress = {"recent": list(recent), "random": random_state()}
        replace_atomically(self._folder / latest.tag / PROGRESS, lambda path: torch.save(progress, path))
        text = latest.model_dump_json()
        replace_atomically(self._folder / LATEST, lambda path: path.write_text(text))
        for folder in self._folder.glob("step_*"):
            if folder.name != latest.tag:
                shutil.rmtree(folder)

    def restore(self) -> tuple[int, list[Figures]] | None:
        latest = self._latest
        if latest is None:
            return None
        tag = latest.tag
        if self._other_processes:
            tag = latest.universal_tag
            if process_rank() == 0:
                _convert_to_universal(self._folder, latest)
            dist.barrier()
        groups = self.optimizer.param_groups
        settings = [{name: value for name, value in group.items() if name != "params"} for group in groups]
        self._engine.load_checkpoint(str(self._folder), tag)
        # Of a universal checkpoint of ZeRO 3, every group gets the settings of the first one, and all states share
        # one counter of steps, which each of them would advance.
        for group, own in zip(groups, settings, strict=True):
            group.update(own)
        for state in self.optimizer.optimizer.state.values():
            if isinstance(state.get("step"), Tensor):
                state["step"] = state["step"].clone()
        progress = torch.load(self._folder / latest.tag / PROGRESS, map_location="cpu", weights_only=True)
        set_random_state(progress["random"])
        return latest.step, progress["recent"]

    @contextmanager
    def whole_weights(self) -> Iterator[None]:
        offload = getattr(self.optimizer, "parameter_offload", None)
        if offload is None:  # ZeRO 1 and 2
            yield
            return
        import deepspeed

        # Small weights stay whole beside their shares; only the latter are what `stored` gives.
        if persistent := offload.persistent_parameters:
            persistent[0].partition(persistent)
        with deepspeed.zero.GatheredParameters(list(self._model.parameters())):
            # The hooks would give the weights back after each module, and expect the order of a training step.
            parameter: Any
            for parameter in self._model.parameters():
                parameter.ds_active_sub_modules.clear()
            offload._remove_module_hooks()
            offload.forward_hooks, offload.backward_hooks = [], []
            try:
                yield
            finally:
                offload.setup_zero_stage3_hooks()

    def stored(self, parameter: nn.Parameter) -> Tensor:
        share: Tensor = getattr(parameter, "ds_tensor", parameter)
        return share

    def finish(self) -> None:
        from deepspeed.utils import safe_get_full_fp32_param

        whole: dict[int, nn.Parameter] = {}
        for parameter in self._model.parameters():
            values = self._frozen.get(id(parameter))
            if values is None:
                values = safe_get_full_fp32_param(parameter).clone()
            whole[id(parameter)] = nn.Parameter(
                values.to(self._engine.device), requires_grad=parameter.requires_grad
            )
        self._engine.destroy()
        for module in self._model.modules():
            module._parameters = {
                name: parameter if parameter is None else whole[id(parameter)]
                for name, parameter in dict.items(module._parameters)
            }


class _Step(nn.Module):
    """What one pass computes, as the module that DeepSpeed runs; gives the loss alone, the rest is `taken`."""

    def __init__(self, model: nn.Module, forward: Callable[[int], StepResult], precision: Precision) -> None:
        super().__init__()
        self.model = model
        self._compute = forward
        self._precision = precision
        self._result: StepResult | None = None

    def forward(self, step: int) -> Tensor:
        with autocast(self._precision, next(self.parameters()).device):
            self._result = self._compute(step)
        return self._result.loss

    def taken(self) -> StepResult:
        """Of the last pass; nothing of it is kept."""
        assert self._result is not None
        result, self._result = self._result, None
        return result


def _initialize(model: nn.Module, optimizer: Optimizer, config: dict[str, Any]) -> Any:
    """DeepSpeed's engine, in the processes that torch.distributed has joined; one process is joined here."""
    if not torch.cuda.is_available():
        os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed
    from deepspeed.ops import __compatible_ops__ as compatible
    from deepspeed.utils import logger

    logger.setLevel("WARNING")
    if not torch.cuda.is_available() and "deepspeed_shm_comm" in compatible:
        # Compiling it takes minutes, and a kill meanwhile leaves a lock that later runs wait for without end.
        compatible["deepspeed_shm_comm"] = False
    if not dist.is_initialized():
        os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed insists on a launcher's variable
        store = dist.HashStore()  # type: ignore[attr-defined]
        dist.init_process_group(communication_backend(), store=store, rank=0, world_size=1)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    return engine


def _read_latest(folder: Path) -> _Latest | None:
    path = folder / LATEST
    return _Latest.model_validate_json(path.read_text()) if path.is_file() else None


def _convert_to_universal(folder: Path, latest: _Latest) -> None:
    """Make `folder/<universal tag>`, whole or not at all."""
    from deepspeed.checkpoint.ds_to_universal import main

    target, partial = folder / latest.universal_tag, folder / f"{latest.universal_tag}_partial"
    if target.is_dir():
        return
    shutil.rmtree(partial, ignore_errors=True)
    with redirect_stdout(sys.stderr):
        main(
            argparse.Namespace(
                input_folder=str(folder / latest.tag),
                output_folder=str(partial),
                num_extract_workers=1,
                num_merge_workers=1,
                keep_temp_folder=False,
                strict=True,
                inject_missing_state=False,
            )
        )
    partial.rename(target)
