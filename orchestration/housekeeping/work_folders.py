"""What jobs leave in `.work`: checkpoints, refused results, curves buffered for MLflow.

A folder is removed by renaming it, under the lock of its stage, into a folder that nothing reads: a run never finds
half of a checkpoint. What an earlier call left there goes first.
"""

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from data_contracts.errors import InputError
from jobs.runner.dvc_stages import LockedStages
from jobs.runner.job_spec import WorkTree
from jobs.runner.layout import STAGES, StageAddress
from jobs.runner.ledger import Ledger, fingerprint, save_inputs
from jobs.runner.outbox import Outbox
from jobs.runner.stage_lock import free_stage
from jobs.runner.tracking import OUTBOX, UNSENT
from orchestration.housekeeping.part import LeftOut, size_and_change
from orchestration.housekeeping.rules import Found, Key, Rule
from orchestration.housekeeping.settings import Retention
from orchestration.launching.interface import LaunchFailed
from orchestration.launching.orphans import launchers_in_use, work_folders

SUPERSEDED, REJECTED, TRASH = "work folder", "refused result", "half-deleted folder"
CURVES = "sent curves"
FINGERPRINT = re.compile(r"[0-9a-f]{32}")
TRASH_FOLDER = Path(".work", "trash")
SENT_FILES = ("entries.jsonl", "artifacts")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a stage needs of its work folders. next: fingerprint of the job that it would run now. all: why it may need
    any of them."""

    next: str = ""
    all: str = ""

    def reason(self, folder: str) -> str:
        """Why it needs this one, "" where it does not."""
        return self.all or ("the next run of its stage goes on from it" if folder == self.next else "")


@dataclass
class WorkFolders:
    root: Path
    retention: Retention
    _seen: dict[Key, float] = field(default_factory=dict, init=False)

    @property
    def rules(self) -> Mapping[str, Rule]:
        kept = self.retention
        return {
            SUPERSEDED: Rule(days=kept.work_folders.days),
            REJECTED: Rule(days=kept.rejected_results.days),
            CURVES: Rule(days=kept.sent_metrics.days),
            TRASH: Rule(days=0.0),
        }

    def held(self) -> AbstractContextManager[None]:
        """No common lock: `remove` takes that of each stage."""
        return nullcontext()

    def find(self) -> list[Found]:
        folders = dict(job_folders(self.root))
        live = live_folders(self.root)
        wanted = self._wanted({*folders.values()})
        found = []
        for folder, address in folders.items():
            size, changed = size_and_change(folder)
            key = self._key(REJECTED if (folder / "rejected").is_dir() else SUPERSEDED, folder)
            needed = "its job runs" if folder in live else wanted[address].reason(folder.name)
            found.append(Found(key=key, changed=changed, bytes=size, needed=needed))
            self._seen[key] = changed
        return found + list(self._sent_curves()) + list(self._trash())

    def _key(self, kind: str, folder: Path) -> Key:
        return Key(kind, folder.relative_to(self.root).as_posix())

    def _wanted(self, addresses: set[StageAddress]) -> dict[StageAddress, "Wanted"]:
        if not addresses:
            return {}
        ledger = Ledger(self.root)
        work_tree = ledger.resources().work_tree
        with ledger.locked_stages() as stages:
            return {address: self._wanted_by(stages, address, work_tree) for address in addresses}

    def _wanted_by(self, stages: LockedStages, address: StageAddress, work_tree: WorkTree) -> "Wanted":
        with free_stage(self.root, address) as free:
            if not free:
                return Wanted(all="a run of its stage goes on")
        try:
            stage = stages.find(address)
        except InputError:  # no longer in partitions.yaml
            return Wanted()
        try:
            save_inputs(stages, stage, work_tree)
        except InputError:
            return Wanted(all="its stage lacks inputs, so it is not known what runs next")
        return Wanted(next=fingerprint(stage))

    def _sent_curves(self) -> Iterator[Found]:
        work = self.root / ".work"
        places = [*work.glob(f"*/last_run/{OUTBOX}"), *work.glob(f"*/*/last_run/{OUTBOX}")]
        for folder in (*places, *(self.root / UNSENT).glob("*")):
            if any((folder / name).exists() for name in SENT_FILES):
                size, changed = size_and_change(folder)
                reason = "" if Outbox(folder).is_sent else "MLflow does not have it yet"
                yield Found(key=self._key(CURVES, folder), changed=changed, bytes=size, needed=reason)

    def _trash(self) -> Iterator[Found]:
        for folder in (self.root / TRASH_FOLDER).glob("*"):
            yield Found(key=self._key(TRASH, folder), changed=0.0, bytes=size_and_change(folder)[0])

    def remove(self, keys: Sequence[Key]) -> None:
        for key in keys:
            folder = self.root / key.name
            if key.kind == TRASH:
                shutil.rmtree(folder, ignore_errors=True)
            elif key.kind == CURVES:
                self._remove_curves(folder)
            else:
                self._remove_job(key)

    def _remove_job(self, key: Key) -> None:
        """Unless a run of the stage has begun, or done something in the folder, since it was looked at."""
        folder = self.root / key.name
        with free_stage(self.root, address_of(self.root, folder)) as free:
            if not free or size_and_change(folder)[1] != self._seen.get(key):
                return
            (self.root / TRASH_FOLDER).mkdir(exist_ok=True)
            trash = Path(tempfile.mkdtemp(dir=self.root / TRASH_FOLDER))
            folder.rename(trash / folder.name)
        shutil.rmtree(trash)

    def _remove_curves(self, folder: Path) -> None:
        outbox = Outbox(folder)
        with outbox.held() as free:
            if not free or not outbox.is_sent:
                return
            (folder / "entries.jsonl").unlink(missing_ok=True)
            shutil.rmtree(folder / "artifacts", ignore_errors=True)


def job_folders(root: Path) -> Iterator[tuple[Path, StageAddress]]:
    """Work folders of jobs, checkpoints and all, and whose they are."""
    for depth in ("*/*", "*/*/*"):  # stage, partition where there is one, fingerprint
        for folder in sorted((root / ".work").glob(depth)):
            if folder.relative_to(root).parts[1] not in STAGES:  # what was half deleted
                continue
            if FINGERPRINT.fullmatch(folder.name) and (folder / "job.json").is_file():
                yield folder, address_of(root, folder)


def address_of(root: Path, folder: Path) -> StageAddress:
    return StageAddress(*folder.relative_to(root / ".work").parts[:-1])


def live_folders(root: Path) -> set[Path]:
    """Of jobs that a launcher has waiting or running."""
    try:
        return {
            folder
            for launcher in launchers_in_use(root)
            for handle in launcher.jobs()
            for folder in work_folders(root, handle)
        }
    except (InputError, LaunchFailed) as error:
        raise LeftOut(f"work folders: it is not known which jobs run ({error})") from None
