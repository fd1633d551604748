"""Who runs the jobs of an experiment: processes on this machine, or Ray over the GPUs and nodes of a cluster.

Either way a job is the command `python -m Training job FOLDER`, so a job that dies takes nothing else with it, and its
output stays in `output.log` of its folder. With `devices` above 1 a job is launched by torchrun and trains under DDP.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tqdm import tqdm

from ..config import ConfigError
from .jobs import LOG, OUTPUT, is_done, read_job

_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Launch:
    """How one job is launched: data folder, torch device, CPU threads (0: torch's own choice), devices a job."""

    data: Path
    device: str = "auto"
    threads: int = 0
    devices: int = 1

    def command(self, job: Path) -> list[str]:
        """The job's command line."""
        start = [sys.executable, "-m"]
        if self.devices > 1:
            start += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(self.devices), "-m"]
        options = ["--data", str(Path(self.data).resolve()), "--device", self.device, "--quiet"]
        options += ["--threads", str(self.threads)] if self.threads else []
        return [*start, "Training", "job", str(Path(job).resolve()), *options]

    def environment(self, slot: int = 0, gpus: int = 0) -> dict[str, str]:
        """Environment of a job: where the packages are, how many threads, and on machines with GPUs which one."""
        root = Path(__file__).resolve().parents[2]
        paths = [str(root / part) for part in (".", "LungNoduleUncertainty", "SoftMaskLabeler")]
        paths += [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
        out = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        if self.threads:
            out["OMP_NUM_THREADS"] = str(self.threads)
        if gpus and self.devices == 1:
            out["CUDA_VISIBLE_DEVICES"] = str(slot % gpus)
        return out


@dataclass(frozen=True)
class Follow:
    """What is done about jobs that run: how often a failed one is tried again, whether a progress bar is shown, and
    `finished(job)`, which is called after each one that has ended.
    """

    retries: int = 1
    progress: bool = True
    finished: Callable[[Path], object] = lambda job: None


def _reason(job: Path, status: int) -> str:
    """Why a job failed: the last line that it wrote."""
    lines = (job / OUTPUT).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    last = lines[-1].rpartition("\r")[2].strip() if lines else ""
    return last.removeprefix("error: ") or f"ended with status {status}"


def _epochs_done(job: Path) -> int:
    log = job / LOG
    return len(log.read_bytes().splitlines()) if log.is_file() else 0


def _gpus() -> int:
    """GPUs of this machine, without starting CUDA in this process."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return 0  # somebody has chosen: the jobs inherit it
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    except OSError:
        return 0
    return done.stdout.count("GPU ") if done.returncode == 0 else 0


@dataclass
class _Running:
    """A process that runs a job, for the `attempt`-th time, and the stream that takes its output."""

    process: subprocess.Popen[bytes]
    job: Path
    attempt: int
    stream: IO[bytes]


def run_local(jobs: Sequence[Path], launch: Launch, follow: Follow | None = None, *, workers: int) -> dict[Path, str]:
    """Run jobs in `workers` processes at once; returns {job: reason} of those that failed after all retries.

    An interrupt ends the processes; running again goes on.
    """
    follow = follow or Follow()
    waiting = [(job, 0) for job in jobs if not is_done(job)]
    epochs = {job: read_job(job).config.training.epochs for job, _ in waiting}
    running: dict[int, _Running] = {}
    failed: dict[Path, str] = {}
    gpus = _gpus()
    bar = tqdm(total=sum(epochs.values()), unit="epoch", disable=not follow.progress, initial=0)
    try:
        while waiting or running:
            for slot in range(workers):
                if slot not in running and waiting:
                    running[slot] = _started(*waiting.pop(0), launch, launch.environment(slot, gpus))
            for slot, one in list(running.items()):
                status = one.process.poll()
                if status is None:
                    continue
                one.stream.close()
                del running[slot]
                if status == 0 and is_done(one.job):
                    failed.pop(one.job, None)
                elif one.attempt < follow.retries:
                    waiting.append((one.job, one.attempt + 1))
                    continue
                else:
                    failed[one.job] = _reason(one.job, status)
                    tqdm.write(f"failed: {one.job.name}: {failed[one.job]}", file=sys.stderr)
                follow.finished(one.job)
            bar.n = sum(total if is_done(job) else min(_epochs_done(job), total) for job, total in epochs.items())
            bar.set_postfix_str(f"{len(running)} running, {len(waiting)} waiting, {len(failed)} failed")
            time.sleep(_POLL_SECONDS)
    finally:
        for one in running.values():
            one.process.terminate()
        for one in running.values():
            one.process.wait()
            one.stream.close()
        bar.close()
    return failed


def _started(job: Path, attempt: int, launch: Launch, environment: dict[str, str]) -> _Running:
    stream = (job / OUTPUT).open("ab")
    process = subprocess.Popen(launch.command(job), env=environment, stdout=stream, stderr=stream, cwd=job)
    return _Running(process, job, attempt, stream)


def run_ray(
    jobs: Sequence[Path], launch: Launch, follow: Follow | None = None, *, gpus_per_job: float = 1.0
) -> dict[Path, str]:
    """The same on a Ray cluster (`ray.init(address="auto")`, or a local one). Output and data folders must be shared.

    Raises ConfigError when Ray isn't installed.
    """
    try:
        import ray
    except ImportError as error:
        raise ConfigError("--engine ray wants the package ray: pip install ray") from error
    follow = follow or Follow()
    if not ray.is_initialized():
        ray.init(address=os.environ.get("RAY_ADDRESS"), log_to_driver=False, include_dashboard=False)
    options: dict[str, float] = {"num_cpus": max(launch.threads, 1), "max_retries": follow.retries}
    if ray.cluster_resources().get("GPU", 0) > 0:
        options["num_gpus"] = gpus_per_job * launch.devices

    def work(job: Path) -> int:
        # Ray has set CUDA_VISIBLE_DEVICES for this task; the job inherits it.
        with (job / OUTPUT).open("ab") as stream:
            done = subprocess.run(
                launch.command(job), env=launch.environment(), stdout=stream, stderr=stream, cwd=job, check=False
            )
        return done.returncode

    remote = ray.remote(work).options(**options)
    attempts = {job: 0 for job in jobs if not is_done(job)}
    pending = {remote.remote(job): job for job in attempts}
    failed: dict[Path, str] = {}
    bar = tqdm(total=len(pending), unit="job", disable=not follow.progress)
    while pending:
        (ready, *_), _ = ray.wait(list(pending))
        job = pending.pop(ready)
        try:
            status: int | str = ray.get(ready)
        except ray.exceptions.RayError as error:
            status = str(error).splitlines()[0]
        if status == 0 and is_done(job):
            bar.update()
        elif attempts[job] < follow.retries:
            attempts[job] += 1
            pending[remote.remote(job)] = job
            continue
        else:
            failed[job] = _reason(job, status) if isinstance(status, int) else status
        follow.finished(job)
    bar.close()
    return failed
