"""Training configurations: a TOML file over documented defaults.

A configuration is a plain nested dict, so that it travels unchanged into checkpoints and into a bundle's metadata.
"""

import copy
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:  # Python 3.10 has no TOML reader of its own
    import tomli as tomllib

DEFAULTS = {
    "name": "unnamed",
    "seed": 0,
    "network": {"name": "ugsnet", "preset": "default"},
    "input": {
        "slice_offsets": [0],  # neighbouring slices that become input channels, as far off as so many pixels
        "through_plane": "isotropic",  # a CT is shown in slices as far apart as pixels; or own: in its own slices,
        # where they are further apart
        "position": False,  # one more channel: how near a pixel lies to the point (see Lib's network_input)
        "window_hu": [-1000.0, 300.0],  # or a list of windows, each a channel
    },
    "data": {
        "protocol": "volume",  # random slices of every nodule, judged in 3D; or slice: the papers' one slice a
        # nodule; or super_resolution: slices from themselves at a quarter of the resolution
        "own_slices": False,  # of the volume protocol: learns from the scans' slices alone, not from what lies between
        "crop": 48,  # pixels
        "pixel_mm": 0.0,  # of the slice protocol: crops are `crop` pixels of this size; 0: of the scan's own
        "fit": "crop",  # of the slice protocol; or pad: whole images, padded to a square and resized to net_size
        "net_size": 0,  # crops are resized to this (64 for the papers' crops of 50); 0 keeps their size
        "large_crop": 64,
        "large_crop_share": 0.2,  # share of batches cut with the large crop
        "slices": 1,  # of the slice protocol: of a nodule, the largest; or so many from end to end, for a network that
        # segments whole stacks
        "slices_per_nodule": 8,  # of the volume protocol: slices of each nodule that an epoch visits
        "reader_share": [1.0, 1.0, 1.0],  # share of them that nodules with 2, 3 and 4 readers get
        "reference": "label1",  # of the slice protocol: what ranks checkpoints; or consensus
        "soft_label": "",  # of the slice protocol, see soft_labels.KINDS: what a soft output learns
        "shuffle": True,  # of the slice protocol
        "first_reader": "fixed",  # Label_1 is the first reader; or random: one drawn anew each time
        "empty_margin": 3,  # slices beyond the union's ends that may be drawn, so that the stack learns to end
        "validation_share": 0.12,  # of the training patients
        "split_seed": -1,  # picks the validation patients; -1: as `seed`. Fix it to compare seeds on the same patients
        "split": "patient",  # or nodule, the papers' own, which leaks: to measure that only
        "folds": 0,  # so many folds in place of those of nodules.csv
        "shares": [],  # in place of folds, one split by patient with the nodules in these proportions: training,
        # validation, test (DSNet: [387, 55, 544]); the number of the fold draws another one
        "least_readers": 1,  # nodules with fewer are left out
    },
    "augmentation": {
        "flip": True,
        "quarter_turns": False,  # turns by 90 degrees, which need no interpolation
        "rotate_degrees": 180.0,
        "rotate_share": 1.0,  # of the images; the others stay as they are
        "scale": [0.8, 1.25],
        "point_jitter_mm": 1.5,
        "noise_hu": 20.0,
        "shift_hu": 30.0,
        "blur": 0.2,  # probability
        "brightness": 0.0,  # at most so much is added, of the window's width
        "contrast": 0.0,  # values are multiplied by 1 plus or minus at most this
        "clahe": 0.0,  # clip limit of local histogram equalisation at 8 bits on 8 x 8 tiles, drawn from [1, this]
        "grey_shares": [0.5, 0.5, 0.9],  # probabilities of brightness with contrast, of clahe, and that either may be
    },
    "loss": {
        "mcm": "bce",
        "fusion": "bce",
        "weights": [0.5, 0.5, 1.0],
        "target": "readers",  # of the single branch and final: all readers, or the first one alone
        "final_readers": "",  # of final alone; empty: as target
        "final_target": "annotations",  # or what at least half of the readers include: consensus
        "dice_weight": 1.0,
        "double_sigmoid": False,
        "form": "",  # of final and side outputs: structure (F3Net's loss) or structure_released in place of fusion
    },
    "dsnet": {  # of the network dsnet alone, but for the teacher
        "weights": [0.5, 100.0, 1.0],  # of Dice, L1 on the soft mask, and the adversarial part
        "dice": "squared",  # v2; plain: v1
        "scale": "signed",  # the soft mask is compared in [-1, 1]
        "gan": "nonsaturating",  # or saturating, lsgan
        "discriminator": {"width": 64, "kernel": 1, "norm": "batch"},
        "teacher": "",  # run folder of a trained srgan_generator (job:NAME: that job), for any network with the option
        # network.teacher; empty: untrained weights
        "warmup_epochs": 0.0,  # of Dice alone, before the other parts and the discriminator
    },
    "super_resolution": {  # of the network srgan_generator alone
        "adversarial": 1e-3,
        "variation": 0.0,
        "gan": "nonsaturating",
        "discriminator_width": 64,
        "warmup_epochs": 0.0,  # of the content loss alone, before the discriminator
    },
    "patch": {  # of the patch classifiers alone
        "per_slice": 32,  # pixels of a slice whose patches a step learns
        "sampling": "balanced",  # uniform; balanced: `nodule_share` in the nodule; boundary: also most near its outline
        "nodule_share": 0.5,
        "boundary_px": 4.0,  # standard deviation of the distances from the outline
        "boundary_floor": 0.05,  # weight of the pixels far from it
    },
    "optimizer": {"name": "adam", "lr": 1e-3, "weight_decay": 0.0, "momentum": 0.9, "betas": [0.9, 0.999]},
    "schedule": {
        "name": "cosine",
        "warmup_epochs": 1,
        "restart_epochs": 50,
        "restart_factor": 2,
        "step_epochs": 50,  # of the schedule step: times step_factor every so many epochs
        "step_factor": 0.1,
        "step_shift": 0,  # epochs by which every drop comes earlier
    },
    "training": {
        "epochs": 40,
        "batch": 32,
        "accumulate": 1,
        "precision": "32-true",
        "ema": 0.0,
        "clip_norm": 0.0,
        "validate_every": 1,
        "init_from": "",
        "sizes": [],  # of the slice protocol: crops of a batch are resized to one of these, drawn for each batch
        "sizes_grey": False,  # masks resized so aren't cut at 0.5 again (IFE's released code)
    },
}


class ConfigError(Exception):
    """A configuration that can't be used; the message names the file, the key and the reason."""


def merge(base: dict, extra: dict, source: str, path: str = "") -> dict:
    for key, value in extra.items():
        where = f"{path}{key}"
        if key not in base and not path.startswith("network."):
            raise ConfigError(f"{source}: unknown key '{where}'; known here: {', '.join(sorted(base))}")
        if isinstance(base.get(key), dict):
            if not isinstance(value, dict):
                raise ConfigError(f"{source}: '{where}' must be a table")
            merge(base[key], value, source, f"{where}.")
        else:
            base[key] = value
    return base


def with_defaults(config: dict, source: str) -> dict:
    """A configuration with the default of every option that it doesn't have. Raises ConfigError for an unknown one."""
    return merge(copy.deepcopy(DEFAULTS), copy.deepcopy(config), source)


def load_config(path, overrides: list[str] = ()) -> dict:
    """Read a TOML file over the defaults; `overrides` are `section.key=value` with TOML values.

    A bare name is looked up among the shipped configurations. Raises ConfigError.
    """
    path = Path(path)
    if not path.exists() and not path.suffix:
        path = Path(__file__).parent / "configs" / f"{path.name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in (Path(__file__).parent / "configs").glob("*.toml")))
        raise ConfigError(f"{path}: no such configuration; shipped ones: {known}")
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    config = with_defaults({"name": path.stem, **given}, str(path))
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise ConfigError(f"override '{override}': expected section.key=value")
        try:
            parsed = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            parsed = value  # a bare word is a string
        nested = parsed
        for part in reversed(key.split(".")):
            nested = {part: nested}
        merge(config, nested, f"override '{override}'")
    return config
