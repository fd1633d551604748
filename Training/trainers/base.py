"""The trainer: one loop for every network, on CPU or CUDA, alone or under DDP, resumable at any step.

A run folder holds `config.json`, `split.json`, `log.jsonl`, TensorBoard events, `last.ckpt` (everything that an exact
resume needs) and `best.safetensors` (the averaged weights with the best validation score).
"""

import json
import time
from dataclasses import asdict
from pathlib import Path

import torch
from lightning_fabric import Fabric
from safetensors.torch import save_file
from tqdm import tqdm

from LungNoduleKit.files import write_whole
from LungNoduleKit.records import record_dict

from ..config import Config, ConfigError, read_config
from ..data.folder import Nodule
from ..losses.uncertainty import UncertaintyLoss
from ..runs import CONFIG, WEIGHTS, build_network, conditions
from ..sampling.tasks import make_task
from .optimization import MovingAverage, learning_rate_factor, make_optimizer
from .teacher import teach
from .warm_start import warm_start


class Trainer:
    """Trains one network on one split. `train()` returns the best validation figures."""

    def __init__(
        self,
        config: Config,
        training: list[Nodule],
        validation: list[Nodule],
        folder,
        *,
        fabric=None,
        progress: bool = True,
        checkpoint_seconds: float = 120.0,
    ):
        self.config, self.folder, self.progress = config, Path(folder), progress
        self.training, self.validation = training, validation
        self.fabric = fabric or Fabric(precision=config.training.precision)
        self.checkpoint_seconds = checkpoint_seconds
        torch.manual_seed(config.seed)
        network = self._network()
        if self.fabric.device.type == "cpu" or config.training.precision != "32-true":
            network = network.to(memory_format=torch.channels_last)
        optimizer = make_optimizer(network.parameters(), config.optimizer)
        self.model, self.optimizer = self.fabric.setup(network, optimizer)
        self.average = MovingAverage(self.model.module, config.training.ema)
        rank, world = self.fabric.global_rank, self.fabric.world_size
        self.batches, self.validate = make_task(config, training, validation, rank, world)
        self.loss = UncertaintyLoss(**asdict(config.loss))
        self.step, self.best, self.moved = 0, {"score": -1.0}, True
        self.total_steps = config.training.epochs * self.batches.epoch_steps

    # -- what other tasks do otherwise ---------------------------------------------------------------------------------
    def _network(self) -> torch.nn.Module:
        """The network to train, with the weights that it starts from."""
        network = build_network(self.config)
        if self.config.training.init_from:
            warm_start(network, self.config)
        teach(network, self.config, self.folder)
        return network

    def _counts(self) -> bool:
        """Whether the weights of now may become the run's best ones."""
        return True

    def _more_state(self) -> dict:
        """What a resume needs beside the network and its optimiser."""
        return {}

    def _load_more_state(self, state: dict) -> None:
        """Take back `_more_state`."""

    # -- state ---------------------------------------------------------------------------------------------------------
    @property
    def checkpoint(self) -> Path:
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
            write_whole(self.checkpoint, lambda path: torch.save(state, path))

    def resume(self) -> bool:
        """Load the resume point if there is one. Raises ConfigError when it belongs to another configuration."""
        if not self.checkpoint.is_file():
            return False
        state = torch.load(self.checkpoint, map_location=self.fabric.device, weights_only=True)
        # Options that have come since it was written have their defaults.
        written = read_config(json.loads(state["config"]), str(self.checkpoint))
        if record_dict(written) != record_dict(self.config):
            raise ConfigError(f"{self.checkpoint}: written by another configuration; give another --output")
        self.model.module.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average.state = state["average"]
        self.step, self.best = state["step"], state["best"]
        self._load_more_state(state)
        return True

    def _log(self, **values) -> None:
        if self.fabric.global_rank == 0:
            with (self.folder / "log.jsonl").open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(values) + "\n")
            for key, value in values.items():
                if isinstance(value, float) and self.board:
                    self.board.add_scalar(key, value, values["epoch"])

    def _start(self) -> None:
        self.board = None
        if self.fabric.global_rank:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / CONFIG).write_text(json.dumps(record_dict(self.config), indent=2), encoding="utf-8")
        split = {
            part: {"patients": sorted({n.patient_id for n in nodules}), "nodules": [n.nodule_id for n in nodules]}
            for part, nodules in (("training", self.training), ("validation", self.validation))
        }
        (self.folder / "split.json").write_text(json.dumps(split), encoding="utf-8")
        (self.folder / "conditions.json").write_text(json.dumps(conditions(), indent=2), encoding="utf-8")
        try:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(self.folder))
        except ImportError:
            self.fabric.print("TensorBoard isn't installed: figures go to log.jsonl only")

    # -- loop ----------------------------------------------------------------------------------------------------------
    def train(self, stop_at_step: int | None = None) -> dict:
        """Run to the end (or to `stop_at_step`, as a kill would), resuming from `last.ckpt` if it is there."""
        self._start()
        if self.resume():
            self.fabric.print(f"resumed at step {self.step} of {self.total_steps}")
        epoch_steps, last_save = self.batches.epoch_steps, time.monotonic()
        while self.step < self.total_steps:
            epoch, begun = self.step // epoch_steps, time.monotonic()
            sums: dict[str, float] = {}
            end = (epoch + 1) * epoch_steps
            bar = tqdm(
                total=epoch_steps,
                initial=self.step % epoch_steps,
                desc=f"epoch {epoch + 1}",
                leave=False,
                disable=not self.progress or self.fabric.global_rank > 0,
            )
            count = 0
            while self.step < end:
                parts = self._train_step()
                count += 1
                for key, value in parts.items():
                    sums[key] = sums.get(key, 0.0) + float(value.detach())
                bar.update()
                bar.set_postfix(loss=f"{sums['total'] / count:.4f}")
                if self.step == stop_at_step:
                    return self.best
                # Between the batches of one accumulated step a resume would lose the gradient gathered so far.
                if self.moved and time.monotonic() - last_save > self.checkpoint_seconds and self.step < end:
                    self.save()
                    last_save = time.monotonic()
            bar.close()
            figures = {f"loss_{key}": value / count for key, value in sums.items()}
            due = (epoch + 1) % self.config.training.validate_every == 0 or self.step == self.total_steps
            if self.validation and due:
                figures.update(self._validate(epoch + 1))
            self._log(epoch=epoch + 1, seconds=time.monotonic() - begun, lr=self._rate(), **figures)
            self.save()
            last_save = time.monotonic()
        if not self.validation and self.fabric.global_rank == 0:
            self._write_best()
        return self.best

    def _rate(self) -> float:
        factor = learning_rate_factor(
            self.config.schedule, self.step / self.batches.epoch_steps, self.config.training.epochs
        )
        return self.config.optimizer.lr * factor

    def _train_step(self) -> dict:
        """One batch; the optimiser moves after every `accumulate` batches (and the remainder at an epoch's end)."""
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

    def _move(self, model, optimizer) -> None:
        """One step of an optimiser at the schedule's present rate, with gradients clipped if asked for."""
        for group in optimizer.param_groups:
            group["lr"] = self._rate()
        if self.config.training.clip_norm:
            self.fabric.clip_gradients(model, optimizer, max_norm=self.config.training.clip_norm)
        optimizer.step()
        optimizer.zero_grad()

    def _validate(self, epoch: int) -> dict:
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
        write_whole(self.folder / WEIGHTS, lambda path: save_file(state, path))
