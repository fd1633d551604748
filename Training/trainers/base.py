"""The trainer: one loop for every network, on CPU or CUDA, alone or under DDP, resumable at any step.

A run folder holds `config.json`, `split.json`, `log.jsonl`, TensorBoard events, `last.ckpt` (everything that an exact
resume needs) and `best.safetensors` (the averaged weights with the best validation score).
"""

import json
import os
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from safetensors.torch import save
from tqdm import tqdm

from LungNoduleKit.files import write_record, write_whole
from LungNoduleKit.records import record_dict

from ..config import Config, ConfigError, Precision, read_config
from ..data.nodule import Nodule
from ..losses.uncertainty import UncertaintyLoss
from ..runs import CONDITIONS, CONFIG, LOG, SPLIT, WEIGHTS, Split, SplitPart, build_network, conditions
from ..sampling.tasks import make_task
from .optimization import MovingAverage, learning_rate_factor, make_optimizer
from .teacher import teach
from .warm_start import warm_start

#: The loss of a step: its parts and their weighted sum `total`.
Losses = dict[str, torch.Tensor]


def start_fabric(precision: Precision, device: str = "auto", devices: int = 1) -> Fabric:
    """Lightning Fabric, started: `devices` of the kind `device`, under DDP where they are several or torchrun asks."""
    under_torchrun = int(os.environ.get("WORLD_SIZE", "1")) > 1
    strategy = "ddp" if devices > 1 or under_torchrun else "auto"
    fabric = Fabric(accelerator=device, devices=devices, strategy=strategy, precision=precision)
    fabric.launch()
    return fabric


def _part(nodules: Sequence[Nodule]) -> SplitPart:
    return SplitPart(tuple(sorted({n.patient_id for n in nodules})), tuple(n.nodule_id for n in nodules))


def _save_state(state: dict[str, Any], path: Path) -> None:
    with path.open("wb") as stream:
        torch.save(state, stream)


def _save_weights(state: dict[str, torch.Tensor], path: Path) -> None:
    path.write_bytes(save(state))  # by Python: a full disk is then an OSError


class Trainer:
    """Trains one network on one split. `train()` returns the best validation figures.

    folder: the run's. device, devices: where to train, see `start_fabric`. checkpoint_seconds: between two checkpoints
    within an epoch.
    """

    def __init__(
        self,
        config: Config,
        training: Sequence[Nodule],
        validation: Sequence[Nodule],
        folder: str | Path,
        *,
        device: str = "auto",
        devices: int = 1,
        progress: bool = True,
        checkpoint_seconds: float = 120.0,
    ):
        self.config, self.folder, self.progress = config, Path(folder), progress
        self.training, self.validation = training, validation
        self.fabric = start_fabric(config.training.precision, device, devices)
        self.checkpoint_seconds = checkpoint_seconds
        torch.manual_seed(config.seed)
        network = self._network()
        if self.fabric.device.type == "cpu" or config.training.precision != "32-true":
            network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = make_optimizer(network.parameters(), config.optimizer)
        self.model, self.optimizer = self.fabric.setup(network, optimizer)
        self.average = MovingAverage(self.model.module, config.training.ema)
        rank, world = self.fabric.global_rank, self.fabric.world_size
        self.batches, self.validate = make_task(config, training, validation, rank, world)
        self.loss = UncertaintyLoss(config.loss)
        self.step, self.moved = 0, True
        self.best: dict[str, float] = {"score": -1.0}
        self.total_steps = config.training.epochs * self.batches.epoch_steps
        self.board: Any = None

    # -- what trainers of other networks do otherwise ------------------------------------------------------------------
    def _network(self) -> torch.nn.Module:
        """The network to train, with the weights that it starts from."""
        network = build_network(self.config)
        if self.config.training.init_from:
            warm_start(network, self.config)
        teach(network, self.config, self.folder)
        return network

    def _train_step(self) -> Losses:
        """One batch; the optimizer moves after every `accumulate` batches (and the remainder at an epoch's end)."""
        self.model.train()
        accumulate = self.config.training.accumulate
        within = self.step % self.batches.epoch_steps
        moves = (within + 1) % accumulate == 0 or within + 1 == self.batches.epoch_steps
        batch = self.batches(self.step).to(self.fabric.device)
        with self.fabric.no_backward_sync(self.model, enabled=not moves):
            with self.fabric.autocast():
                image = batch.image.contiguous(memory_format=torch.channels_last)
                logits = self.model(image)
            parts = self.loss(logits, batch.readers, batch.valid)
            self.fabric.backward(parts["total"] / accumulate)
        if moves:
            self._move(self.model, self.optimizer)
            self.average.update(self.model.module, self.step)
        self.step, self.moved = self.step + 1, moves
        return parts

    def _counts(self) -> bool:
        """Whether the weights of now may become the run's best ones."""
        return True

    def _more_state(self) -> dict[str, Any]:
        """What a resume needs beside the network and its optimizer."""
        return {}

    def _load_more_state(self, state: dict[str, Any]) -> None:
        """Take back `_more_state`."""

    # -- state ---------------------------------------------------------------------------------------------------------
    @property
    def checkpoint(self) -> Path:
        """The resume point."""
        return self.folder / "last.ckpt"

    def save(self) -> None:
        """Write the resume point; only the first rank writes."""
        if self.fabric.global_rank == 0:
            state = {
                "step": self.step,
                "best": self.best,
                "model": self.model.module.state_dict(),
                "average": self.average.state,
                "optimizer": self.optimizer.state_dict(),
                "config": json.dumps(record_dict(self.config), sort_keys=True),
                **self._more_state(),
            }
            write_whole(self.checkpoint, partial(_save_state, state))

    def resume(self) -> bool:
        """Load the resume point if there is one. Raises ConfigError when it belongs to another configuration."""
        if not self.checkpoint.is_file():
            return False
        with self.checkpoint.open("rb") as stream:
            state = torch.load(stream, map_location=self.fabric.device, weights_only=True)
        # Options that it doesn't name have their defaults.
        written = read_config(json.loads(state["config"]), str(self.checkpoint))
        if record_dict(written) != record_dict(self.config):
            raise ConfigError(f"{self.checkpoint}: written by another configuration; set another --output")
        self.model.module.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average.state = state["average"]
        self.step, self.best = state["step"], state["best"]
        self._load_more_state(state)
        return True

    def _trim_log(self) -> None:
        """Takes off the log what a killed run wrote after its last resume point: it is going to be done again."""
        path = self.folder / LOG
        if self.fabric.global_rank or not path.is_file():
            return
        done, kept = self.step // self.batches.epoch_steps, []
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
            try:
                finished = line.endswith("\n") and json.loads(line)["epoch"] <= done
            except (ValueError, KeyError, TypeError):
                finished = False
            kept += [line] if finished else []
        write_whole(path, lambda target: target.write_text("".join(kept), encoding="utf-8"))

    def _log(self, epoch: int, **values: float) -> None:
        if self.fabric.global_rank == 0:
            with (self.folder / LOG).open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"epoch": epoch, **values}) + "\n")
            for key, value in values.items():
                if isinstance(value, float) and self.board:
                    self.board.add_scalar(key, value, epoch)

    def _start(self) -> None:
        """Write what is known of the run before its first step; only the first rank writes."""
        if self.fabric.global_rank:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        write_record(self.folder / CONFIG, self.config)
        split = Split(_part(self.training), _part(self.validation))
        write_record(self.folder / SPLIT, split)
        write_record(self.folder / CONDITIONS, conditions())
        try:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(self.folder))
        except ImportError:
            self.fabric.print("TensorBoard isn't installed: figures go to log.jsonl only")

    # -- loop ----------------------------------------------------------------------------------------------------------
    def train(self, stop_at_step: int | None = None) -> dict[str, float]:
        """Run to the end (or to `stop_at_step`, as a kill would), resuming from `last.ckpt` if it is there."""
        self._start()
        if self.resume():
            self.fabric.print(f"resumed at step {self.step} of {self.total_steps}")
        self._trim_log()
        while self.step < self.total_steps:
            epoch, begun = self.step // self.batches.epoch_steps + 1, time.monotonic()
            figures = self._train_epoch(epoch, stop_at_step)
            if self.step == stop_at_step:
                return self.best
            due = epoch % self.config.training.validate_every == 0 or self.step == self.total_steps
            if self.validation and due:
                figures.update(self._validate(epoch))
            self._log(epoch, seconds=time.monotonic() - begun, lr=self._rate(), **figures)
            self.save()
        if not self.validation and self.fabric.global_rank == 0:
            self._write_best()
        return self.best

    def _train_epoch(self, epoch: int, stop_at_step: int | None) -> dict[str, float]:
        """Steps to the end of the epoch (or to `stop_at_step`); mean losses."""
        epoch_steps, last_save = self.batches.epoch_steps, time.monotonic()
        sums: dict[str, float] = {}
        count, end = 0, epoch * epoch_steps
        with tqdm(
            total=epoch_steps,
            initial=self.step % epoch_steps,
            desc=f"epoch {epoch}",
            leave=False,
            disable=not self.progress or self.fabric.global_rank > 0,
        ) as bar:
            while self.step < end and (self.step != stop_at_step or not count):
                parts = self._train_step()
                count += 1
                for key, value in parts.items():
                    sums[key] = sums.get(key, 0.0) + float(value.detach())
                bar.update()
                bar.set_postfix(loss=f"{sums['total'] / count:.4f}")
                # Between the batches of one accumulated step a resume would lose the gradient gathered so far.
                due = self.moved and time.monotonic() - last_save > self.checkpoint_seconds
                if due and self.step < end and self.step != stop_at_step:
                    self.save()
                    last_save = time.monotonic()
        return {f"loss_{key}": value / count for key, value in sums.items()}

    def _rate(self) -> float:
        """The learning rate of now."""
        progress = self.step / self.batches.epoch_steps
        factor = learning_rate_factor(self.config.schedule, progress, self.config.training.epochs)
        return self.config.optimizer.lr * factor

    def _move(self, model: Any, optimizer: Any) -> None:
        """One step of an optimizer at the schedule's present rate, with gradients clipped if `clip_norm` says so."""
        for group in optimizer.param_groups:
            group["lr"] = self._rate()
        if self.config.training.clip_norm:
            self.fabric.clip_gradients(model, optimizer, max_norm=self.config.training.clip_norm)
        optimizer.step()
        optimizer.zero_grad()

    def _validate(self, epoch: int) -> dict[str, float]:
        kept = {key: value.clone() for key, value in self.model.module.state_dict().items()}
        self.model.module.load_state_dict(self.average.state)
        figures = self.validate(self.model.module, self.fabric)
        if self._counts() and figures["score"] > self.best["score"]:
            self.best = {"epoch": epoch, **figures}
            if self.fabric.global_rank == 0:
                self._write_best()
        self.model.module.load_state_dict(kept)
        self.fabric.print(f"epoch {epoch}: " + ", ".join(f"{key} {value:.4f}" for key, value in figures.items()))
        return {f"validation_{key}": value for key, value in figures.items()}

    def _write_best(self) -> None:
        state = {key: value.contiguous() for key, value in self.average.state.items()}
        write_whole(self.folder / WEIGHTS, partial(_save_weights, state))
