"""The training loop: an interrupted run ends exactly like one that was not, and bad losses stop it."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import nn

from alto_models.training.loop import NonFiniteLossError, StepResult, Training
from alto_models.training.muon import Muon
from alto_models.training.schedule import LearningRate
from data_contracts.errors import JobStopped


class Bar:
    def __init__(self) -> None:
        self.count = 0.0

    def update(self, n: float = 1) -> None:
        self.count += n


class Interrupted(Exception):
    pass


def make_training(
    folder: Path,
    log: list[tuple[int, Mapping[str, float]]],
    stop_at: int | None = None,
    bad_step: int = -1,
    ema_decay: float | None = None,
    asked_at: int | None = None,
    resumable_every: int = 1,
) -> Training:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    matrices = [model[0].weight, model[2].weight]
    biases = [model[0].bias, model[2].bias]
    optimizer = Muon([{"params": matrices, "matrices": True}, {"params": biases}], weight_decay=0.1)

    begun = []

    def forward(step: int) -> StepResult:
        begun.append(step)
        if step == stop_at:
            raise Interrupted
        inputs = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
        loss = (model(inputs) - inputs.sum(1, keepdim=True)).square().mean()
        if step == bad_step:
            loss = loss * float("nan")
        return StepResult(loss=loss, samples=[f"sample-{step}"], figures={"twice": 2 * loss})

    return Training(
        model=model,
        optimizer=optimizer,
        learning_rate=LearningRate(peak=0.05, final=0.0, warmup_steps=3),
        total_steps=20,
        forward=forward,
        folder=folder,
        save_every=4,
        log=lambda step, figures: log.append((step, figures)),
        ema_decay=ema_decay,
        log_every=3,
        stop=lambda: asked_at in begun,
        resumable_every=resumable_every,
    )


def weights(training: Training) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in training.model.parameters()]


def test_resumed_run_equals_uninterrupted_run_bit_for_bit(tmp_path: Path) -> None:
    whole_log: list[tuple[int, Mapping[str, float]]] = []
    whole = make_training(tmp_path / "whole", whole_log)
    whole.run(whole.restore(), Bar())

    parts_log: list[tuple[int, Mapping[str, float]]] = []
    first = make_training(tmp_path / "parts", parts_log, stop_at=14)
    with pytest.raises(Interrupted):
        first.run(first.restore(), Bar())
    torch.manual_seed(999)  # dropout must continue from the saved state, not from this one
    second = make_training(tmp_path / "parts", parts_log)
    start = second.restore()
    assert start == 12
    bar = Bar()
    second.run(start, bar)
    assert bar.count == 8
    for one, other in zip(weights(whole), weights(second), strict=True):
        assert torch.equal(one, other)
    assert dict(parts_log) == dict(whole_log)


@pytest.mark.parametrize(
    ("asked_at", "resumable_every", "stopped_after"),
    [(0, 1, 1), (6, 1, 7), (7, 1, 8), (16, 4, None), (4, 2, 6), (18, 1, 19), (19, 1, None)],
)
def test_asked_to_stop_it_saves_after_the_step_and_goes_on_as_if_nothing_had_been(
    tmp_path: Path, asked_at: int, resumable_every: int, stopped_after: int | None
) -> None:
    whole_log: list[tuple[int, Mapping[str, float]]] = []
    whole = make_training(tmp_path / "whole", whole_log)
    whole.run(whole.restore(), Bar())

    log: list[tuple[int, Mapping[str, float]]] = []
    first = make_training(tmp_path / "parts", log, asked_at=asked_at, resumable_every=resumable_every)
    if stopped_after is None:  # done before the next step to go on from
        first.run(0, Bar())
        assert dict(log) == dict(whole_log)
        return
    with pytest.raises(JobStopped, match=f"after step {stopped_after} of 20"):
        first.run(0, Bar())
    torch.manual_seed(999)
    second = make_training(tmp_path / "parts", log)
    assert second.restore() == stopped_after
    second.run(stopped_after, Bar())
    for one, other in zip(weights(whole), weights(second), strict=True):
        assert torch.equal(one, other)
    assert dict(log) == dict(whole_log)


def test_curves_are_means_since_the_last_point(tmp_path: Path) -> None:
    log: list[tuple[int, Mapping[str, float]]] = []
    training = make_training(tmp_path, log)
    training.run(training.restore(), Bar())
    assert [step for step, _ in log] == [3, 6, 9, 12, 15, 18, 20]
    assert all(point["twice"] == pytest.approx(2 * point["loss"]) for _, point in log)


def test_non_finite_loss_names_step_and_sample_and_spoils_no_checkpoint(tmp_path: Path) -> None:
    training = make_training(tmp_path, [], bad_step=7)  # the last one before a checkpoint is due
    with pytest.raises(NonFiniteLossError, match=r"step 7; .*sample-7"):
        training.run(0, Bar())
    again = make_training(tmp_path, [])
    assert again.restore() == 4
    again.run(4, Bar())
    assert all(parameter.isfinite().all() for parameter in weights(again))


def test_passes_of_a_step_equal_one_large_batch(tmp_path: Path) -> None:
    def trained(passes: int) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = nn.Linear(3, 1)
        calls = iter(range(100))

        def forward(step: int) -> StepResult:
            inputs = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
            part = inputs if passes == 1 else inputs.chunk(passes)[next(calls) % passes]
            loss = (model(part) - part.sum(1, keepdim=True)).square().mean()
            return StepResult(loss=loss, samples=[f"sample-{step}"], figures={"twice": 2 * loss})

        log: list[tuple[int, Mapping[str, float]]] = []
        training = Training(
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.0),
            learning_rate=LearningRate(peak=0.05, final=0.0, warmup_steps=3),
            total_steps=6,
            forward=forward,
            folder=tmp_path / str(passes),
            save_every=100,
            log=lambda step, figures: log.append((step, figures)),
            passes=passes,
        )
        training.run(0, Bar())
        logs[passes] = log
        return weights(training)

    logs: dict[int, list[tuple[int, Mapping[str, float]]]] = {}
    for one, other in zip(trained(1), trained(2), strict=True):
        torch.testing.assert_close(one, other)
    assert logs[2] == [(step, pytest.approx(figures)) for step, figures in logs[1]]


def test_averaged_weights_are_the_exponential_mean_and_survive_an_interruption(tmp_path: Path) -> None:
    plain = make_training(tmp_path / "plain", [])
    steps: list[list[torch.Tensor]] = []
    plain.log_every = 1
    plain.log = lambda step, figures: steps.append(weights(plain))
    start = weights(plain)
    plain.run(0, Bar())
    expected = start
    for step, values in enumerate(steps):
        decay = min(0.8, (1 + step) / (10 + step))
        expected = [decay * old + (1 - decay) * new for old, new in zip(expected, values, strict=True)]

    first = make_training(tmp_path / "averaged", [], stop_at=14, ema_decay=0.8)
    with pytest.raises(Interrupted):
        first.run(0, Bar())
    second = make_training(tmp_path / "averaged", [], ema_decay=0.8)
    second.run(second.restore(), Bar())
    for one, other in zip(weights(second), expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    training = make_training(tmp_path, [])
    training.run(training.restore(), Bar())
    again = make_training(tmp_path, [], stop_at=0)
    assert again.restore() == 20
    again.run(20, Bar())
    for one, other in zip(weights(training), weights(again), strict=True):
        assert torch.equal(one, other)
