"""Training configurations: a TOML file over documented defaults, as a record whose keys and types are checked.

`record_dict` writes a configuration into run folders, checkpoints and job files; `read_config` reads it back.
"""

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from LungNoduleKit.errors import NoduleError, shortened, shown
from LungNoduleKit.records import REST, checked_depth, read_record, read_text, record_dict
from LungNoduleUncertaintyLib import networks
from LungNoduleUncertaintyLib.models.network_input import SliceInput

if sys.version_info >= (3, 11):
    import tomllib
else:  # Python 3.10 has no TOML reader of its own
    import tomli as tomllib

Task = Literal["volume", "slice", "super_resolution"]
SoftLabel = Literal["", "soft_mask", "soft_mask_of_consensus", "kats", "softseg", "mean", "hard", "given"]
Precision = Literal["16-true", "16-mixed", "bf16-true", "bf16-mixed", "32-true", "64-true"]
LossKind = Literal["bce", "dice", "bce+dice"]
DiceForm = Literal["squared", "plain"]
SoftScale = Literal["signed", "unit"]
GanForm = Literal["nonsaturating", "saturating", "lsgan"]
PaintingKind = Literal["cavity", "mass", "vessel", "calcified", "flat"]
#: Tables of single networks: name -> the networks that train so. An error beside any other network.
NETWORK_TABLES = {
    table: tuple(name for name in networks.available() if networks.training_of(name) == table)
    for table in ("dsnet", "super_resolution", "patch")
}
SHIPPED = Path(__file__).parent / "configs"


class ConfigError(NoduleError):
    """A configuration that can't be used; the message names the file, the key and the reason."""


@dataclass(frozen=True)
class Network:
    """A network by its name, a preset, and the network's own options, which stand beside the two in the table."""

    name: str = "ugsnet"
    preset: str = "default"
    options: dict[str, Any] = field(default_factory=dict, metadata=REST)


@dataclass(frozen=True)
class Data:
    """Which nodules a run learns from, and what it is shown of them."""

    #: volume: random slices of every nodule, judged in 3D; slice: the papers' one slice a nodule; super_resolution:
    #: slices from themselves at a quarter of the resolution.
    task: Task = "volume"
    #: Task volume: learns from the scans' slices alone, not from what is interpolated between them.
    native_slices: bool = False
    #: Pixels of the square that is cut around the nodule.
    crop: int = 48
    #: Task slice: crops are `crop` pixels of this size; 0: of the scan's pixels.
    pixel_mm: float = 0.0
    #: Task slice: pad: whole images, padded to a square and resized to net_size.
    fit: Literal["crop", "pad"] = "crop"
    #: Crops are resized to this (64 for the papers' crops of 50); 0 keeps their size.
    net_size: int = 0
    #: Pixels of the crop for nodules that fill the other one.
    large_crop: int = 64
    #: Share of batches cut with the large crop.
    large_crop_share: float = 0.2
    #: Task slice: the largest slice of a nodule; or so many from end to end, for a network that segments whole stacks.
    slices: int = 1
    #: Task volume: slices of each nodule that an epoch visits.
    slices_per_nodule: int = 8
    #: Share of them that nodules with 2, 3 and 4 readers get.
    reader_share: tuple[float, float, float] = (1.0, 1.0, 1.0)
    #: Task slice: what ranks checkpoints.
    reference: Literal["label1", "consensus"] = "label1"
    #: Task slice: what a soft output learns (see Training.data.soft_labels); given: the soft mask of the data itself.
    soft_label: SoftLabel = ""
    #: Task slice: every epoch in another order.
    shuffle: bool = True
    #: Label_1 is the first reader (fixed), or one drawn anew each time (random).
    first_reader: Literal["fixed", "random"] = "fixed"
    #: Slices beyond the union's ends that may be drawn, so that the stack learns to end.
    empty_margin: int = 3
    #: Share of the training patients.
    validation_share: float = 0.12
    #: Picks the validation patients; -1: as `seed`. Fix it to compare seeds on the same patients.
    split_seed: int = -1
    #: nodule: the papers' own split, which lets a patient into several folds: only to measure that.
    split: Literal["patient", "nodule"] = "patient"
    #: So many folds in place of those of nodules.csv.
    folds: int = 0
    #: In place of folds, one split by patient with the nodules in these proportions: training, validation, test
    #: (DSNet: [387, 55, 544]); the number of the fold draws another one.
    shares: tuple[float, ...] = ()
    #: Nodules with fewer are left out.
    least_readers: int = 1


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a batch."""

    #: Mirrored left to right, and the stack upside down, each with probability 0.5.
    flip: bool = True
    #: Turns by 90 degrees, which need no interpolation.
    quarter_turns: bool = False
    #: At most so far, to either side.
    rotate_degrees: float = 180.0
    #: Of the images; the others stay as they are.
    rotate_share: float = 1.0
    #: Smallest and largest magnification.
    scale: tuple[float, float] = (0.8, 1.25)
    #: Standard deviation of the point around the nodule's center, along each axis.
    point_jitter_mm: float = 1.5
    #: Largest standard deviation of the noise that is added.
    noise_hu: float = 20.0
    #: At most so much is added to all HU of an image.
    shift_hu: float = 30.0
    #: Probability that an image is blurred.
    blur: float = 0.2
    #: At most so much is added, of the window's width.
    brightness: float = 0.0
    #: Values are multiplied by 1 plus or minus at most this.
    contrast: float = 0.0
    #: Clip limit of local histogram equalization at 8 bits on 8 x 8 tiles, drawn from [1, this].
    clahe: float = 0.0
    #: Probabilities of brightness with contrast, of clahe, and that either may be.
    gray_shares: tuple[float, float, float] = (0.5, 0.5, 0.9)


@dataclass(frozen=True)
class Painting:
    """Task volume: painted copies of nodules, as many of each kind as so many times the training nodules.

    See Training.sampling.painting.
    """

    #: Cavities, 8 to 48 mm wide with walls of 1.5 to 6 mm; the cavity belongs to the nodule.
    cavity: float = 0.0
    #: Nodules magnified to 25 to 60 mm.
    mass: float = 0.0
    #: A vessel along the body's axis through or beside the nodule, which doesn't belong to it.
    vessel: float = 0.0
    #: Nodules as bright as calcified ones.
    calcified: float = 0.0
    #: Nodules pressed flat in plane.
    flat: float = 0.0
    #: How many more times the data's own cavitary nodules are visited (internal structure rated above 1).
    cavitary_repeats: int = 0


@dataclass(frozen=True)
class Loss:
    """What a network's outputs learn; see Training.losses.uncertainty."""

    #: Of union and intersection (Multi-Confidence Mask).
    mcm: LossKind = "bce"
    #: Of the single branch and final.
    fusion: LossKind = "bce"
    #: Of mcm, the single branch and final.
    weights: tuple[float, float, float] = (0.5, 0.5, 1.0)
    #: Of the single branch and final: all readers, or the first one alone.
    target: Literal["readers", "first"] = "readers"
    #: Of final alone; empty: as target.
    final_readers: Literal["", "readers", "first"] = ""
    #: Every annotation, or what at least half of the readers include.
    final_target: Literal["annotations", "consensus"] = "annotations"
    #: Of Dice in bce+dice.
    dice_weight: float = 1.0
    #: Sigmoid applied twice, as the code released with UGS-Net-V1 does by mistake.
    double_sigmoid: bool = False
    #: Of final and side outputs: structure (F3Net's loss) or structure_released in place of fusion.
    form: Literal["", "structure", "structure_released"] = ""


@dataclass(frozen=True)
class Discriminator:
    """DSNet's pixel discriminator."""

    width: int = 64
    kernel: int = 1
    norm: str = "batch"


@dataclass(frozen=True)
class DSNet:
    """Training of the network dsnet."""

    #: Of Dice, L1 on the soft mask, and the adversarial part.
    weights: tuple[float, float, float] = (0.5, 100.0, 1.0)
    #: squared: v2; plain: v1.
    dice: DiceForm = "squared"
    #: signed: the soft mask is compared in [-1, 1].
    scale: SoftScale = "signed"
    gan: GanForm = "nonsaturating"
    discriminator: Discriminator = Discriminator()
    #: Of Dice alone, before the other parts and the discriminator.
    warmup_epochs: float = 0.0


@dataclass(frozen=True)
class SuperResolution:
    """Training of the network srgan_generator."""

    #: Weight of the adversarial part.
    adversarial: float = 1e-3
    #: Weight of the total variation.
    variation: float = 0.0
    gan: GanForm = "nonsaturating"
    discriminator_width: int = 64
    #: Of the content loss alone, before the discriminator.
    warmup_epochs: float = 0.0


@dataclass(frozen=True)
class Patch:
    """Training of the patch classifiers."""

    #: Pixels of a slice whose patches a step learns.
    per_slice: int = 32
    #: balanced: `nodule_share` in the nodule; boundary: also most near its outline.
    sampling: Literal["uniform", "balanced", "boundary"] = "balanced"
    nodule_share: float = 0.5
    #: Standard deviation of the distances from the outline.
    boundary_px: float = 4.0
    #: Weight of the pixels far from it.
    boundary_floor: float = 0.05


@dataclass(frozen=True)
class Optimizer:
    """Step rule and initial learning rate."""

    name: Literal["adam", "adamw", "sgd"] = "adam"
    #: The learning rate that the schedule starts from.
    lr: float = 1e-3
    weight_decay: float = 0.0
    #: Of sgd.
    momentum: float = 0.9
    #: Of adam and adamw.
    betas: tuple[float, float] = (0.9, 0.999)


@dataclass(frozen=True)
class Schedule:
    """How the learning rate falls; see Training.trainers.optimization."""

    name: Literal["cosine", "cosine_restarts", "poly", "constant", "step"] = "cosine"
    #: Epochs in which the rate rises from zero; not of cosine_restarts.
    warmup_epochs: float = 1
    #: Of cosine_restarts: epochs to the first restart.
    restart_epochs: float = 50
    #: Of cosine_restarts: every period is so many times the last one.
    restart_factor: float = 2
    #: Of the schedule step: times step_factor every so many epochs.
    step_epochs: float = 50
    step_factor: float = 0.1
    #: Epochs by which every drop comes earlier.
    step_shift: float = 0


@dataclass(frozen=True)
class Training:
    """How long a run is, in which steps, and what it starts from."""

    epochs: int = 40
    #: Slices of a step, of one process.
    batch: int = 32
    #: Batches whose gradients make one step.
    accumulate: int = 1
    #: Lightning Fabric's.
    precision: Precision = "32-true"
    #: Decay of the moving average of the weights; 0: none.
    ema: float = 0.0
    #: Largest norm of the gradient; 0: not clipped.
    clip_norm: float = 0.0
    #: Epochs between two validations.
    validate_every: int = 1
    #: A file of weights to start from (see Training.trainers.warm_start).
    init_from: str = ""
    #: Run folder of a trained srgan_generator, for any network with the option network.teacher (job:NAME: that job);
    #: empty: untrained weights.
    teacher: str = ""
    #: Task slice: crops of a batch are resized to one of these, drawn for each batch.
    sizes: tuple[int, ...] = ()
    #: Masks resized so keep their values between 0 and 1 (IFE's released code); else they are thresholded at 0.5 again.
    sizes_gray: bool = False


@dataclass(frozen=True)
class Config:
    """A training configuration; tables of single networks are None beside the other networks."""

    #: Of the run folder and the exported model; without it that of the file.
    name: str = "unnamed"
    #: Of the network's first weights and of all that is drawn.
    seed: int = 0
    network: Network = Network()
    input: SliceInput = field(default_factory=SliceInput)
    data: Data = Data()
    augmentation: Augmentation = Augmentation()
    painting: Painting = Painting()
    loss: Loss = Loss()
    dsnet: DSNet | None = None
    super_resolution: SuperResolution | None = None
    patch: Patch | None = None
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    training: Training = Training()
    #: Where it was read, for messages; no part of the configuration.
    source: str = field(default="", init=False, compare=False, repr=False)


def read_config(values: Mapping[str, Any], source: str) -> Config:
    """A configuration from nested dicts, as JSON or TOML holds them, with the default of every option not given.

    `source` names the file in messages. Raises ConfigError for an unknown key, a value of another type, or a table of
    another network; for an unknown option of the network or one out of range.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{source}: its content must be a table, not {shown(values)}")
    given = dict(values)
    network = given.get("network", {})
    name = network.get("name", Network.name) if isinstance(network, Mapping) else None
    for table, owners in NETWORK_TABLES.items():
        if isinstance(name, str) and name in owners:
            given.setdefault(table, {})
        elif table in given:
            raise ConfigError(
                f"{source}: the table '{table}' is for {' and '.join(owners)} alone, not for {shown(name)}"
            )
    config = read_record(Config, given, source, ConfigError)
    try:
        networks.check(config.network.name, config.network.preset, config.network.options)
    except ValueError as error:
        raise ConfigError(f"{source}: {shortened(error, 400)}") from error
    object.__setattr__(config, "source", source)  # a record is frozen
    return config


def changed(config: Config, values: Mapping[str, Any], source: str = "configuration") -> Config:
    """The configuration with other values: nested dicts of what differs. Options of the network are added to its own.

    With another network the tables of the former one fall back to what `values` say. Raises ConfigError.
    """
    merged = merge(record_dict(config), values, source)
    if merged["network"]["name"] != config.network.name:
        merged = {key: v for key, v in merged.items() if key not in NETWORK_TABLES or key in values}
    made = read_config(merged, source)
    object.__setattr__(made, "source", config.source or source)
    return made


def without_other_tables(values: Mapping[str, Any], network: str) -> dict[str, Any]:
    """`values` of a configuration without the tables of networks other than `network`."""
    return {key: value for key, value in values.items() if network in NETWORK_TABLES.get(key, (network,))}


def merge(base: dict[str, Any], extra: Mapping[str, Any], source: str, path: str = "") -> dict[str, Any]:
    """Nested dicts with what differs put in: a new dict. Raises ConfigError for a value in the place of a table."""
    merged = dict(base)
    for key, value in extra.items():
        if isinstance(base.get(key), dict):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{source}: '{path}{key}' must be a table, not {shown(value)}")
            value = merge(base[key], value, source, f"{path}{key}.")
        merged[key] = value
    return merged


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file. Raises ConfigError where it isn't valid, or has tables nested too deep."""
    try:
        return checked_depth(tomllib.loads(read_text(path, ConfigError)))
    except (ValueError, RecursionError) as error:  # also a whole number of thousands of digits
        raise ConfigError(f"{path}: not valid TOML: {shortened(error, 200)}") from error


def load_config(path: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Read a TOML file over the defaults; `overrides` are `section.key=value` with TOML values.

    A bare name is looked up among the shipped configurations. Raises ConfigError.
    """
    path = Path(path)
    if not os.path.exists(path) and not path.suffix:  # Path.exists raises for a name that is too long
        path = SHIPPED / f"{path.name}.toml"
    if not os.path.isfile(path):
        known = ", ".join(sorted(p.stem for p in SHIPPED.glob("*.toml")))
        raise ConfigError(f"{shortened(path, 200)}: no such configuration; shipped ones: {known}")
    config = read_config({"name": path.stem, **read_toml(path)}, str(path))
    for override in overrides:
        config = changed(config, _parsed(override), f"override '{shortened(override)}'")
    return config


def _parsed(override: str) -> dict[str, Any]:
    """`section.key=value` as nested dicts."""
    key, equals, text = override.partition("=")
    if not equals or key.count(".") > 9:
        raise ConfigError(f"override '{shortened(override)}': expected section.key=value")
    try:
        value = checked_depth(tomllib.loads(f"value = {text}")["value"])
    except (ValueError, RecursionError):
        value = text  # a bare word is a string
    for part in reversed(key.split(".")):
        value = {part: value}
    return value
