"""Work folders of jobs, and the takeover of a failed job's training by the next job of the same model."""

import contextlib
import shutil
from pathlib import Path
from uuid import UUID

from clm_core.domain.jobs import TrainingJob

KEY = "key"
"""File beside the training results with their `results_key`."""


def workspace(work: Path, job_id: UUID) -> Path:
    """Folder for the files of a running job, below the work folder of the installation."""
    return work / str(job_id)


def clear_workspace(work: Path, job_id: UUID) -> None:
    """Delete the files of a job."""
    shutil.rmtree(workspace(work, job_id), ignore_errors=True)


def start_workspace(work: Path, job_id: UUID, key: str) -> Path:
    """A folder for new training results, labelled with the key of the results."""
    folder = workspace(work, job_id)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / KEY).write_text(key)
    return folder


def kept_training(work: Path, model_id: str) -> Path:
    """Folder of the training results kept from the last job of the model that failed after training."""
    return work / "trained" / model_id


def keep_training(work: Path, job: TrainingJob) -> None:
    """Keep the complete training results of a failing job for the next job; delete its other files."""
    folder = workspace(work, job.id)
    kept = kept_training(work, job.model_id)
    if _is_complete(folder):
        shutil.rmtree(kept, ignore_errors=True)
        kept.parent.mkdir(exist_ok=True)
        # another job of the model may have kept its results in between: either set is good enough
        with contextlib.suppress(OSError):
            folder.rename(kept)
    clear_workspace(work, job.id)


def take_over_training(work: Path, job: TrainingJob, key: str) -> bool:
    """Move kept training results into the job's folder; true if complete and stored under the same key.

    Kept results under another key are deleted.
    """
    folder = workspace(work, job.id)
    # moved before being read: of two jobs at once, exactly one gets the results
    with contextlib.suppress(OSError):
        kept_training(work, job.model_id).rename(folder)
        if (folder / KEY).read_text() == key and _is_complete(folder):
            return True
    clear_workspace(work, job.id)
    return False


def copy_training(stored: Path, work: Path, job_id: UUID) -> bool:
    """Copy complete training results, stored by `store_training`, into the job's folder; true if there."""
    if not _is_complete(stored):
        return False
    shutil.copytree(stored, workspace(work, job_id), dirs_exist_ok=True)
    return True


def store_training(stored: Path, work: Path, job_id: UUID) -> None:
    """Copy the training results of a job to a folder, which appears complete or not at all.

    The unfinished copy lies in the work folder, so the copy of a killed process is deleted with the folder.
    """
    unfinished = work / f"storing-{job_id}"
    shutil.copytree(workspace(work, job_id), unfinished)
    # another replay may have stored the same results in between
    with contextlib.suppress(OSError):
        unfinished.rename(stored)
    shutil.rmtree(unfinished, ignore_errors=True)


def _is_complete(folder: Path) -> bool:
    # of the maintenance passes, those that find a dead job need the libraries of a training
    from clm_core.retraining import training

    return training.is_complete(folder)
