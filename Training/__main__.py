"""Command line of the training package: `python -m Training COMMAND --help`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from LungNoduleKit.errors import NoduleError, print_any_name

#: Command -> the module that has its `add_arguments(parser)` and `run(args) -> exit status`, and what it is for. In the
#: order of a project: data, training, measuring, the papers' experiments.
COMMANDS = {
    "prepare-lidc": ("data.lidc.prepare", "build the data folder from LIDC-IDRI's DICOM series"),
    "prepare-images": ("data.images.prepare", "build a data folder of single images with masks"),
    "merge-images": ("data.images.merging", "merge several folders of prepare-images into one"),
    "readers": ("evaluation.reader_agreement", "how well the readers of a data folder agree with each other"),
    "train": ("trainers.train", "train a network; a run that was stopped resumes where it was"),
    "calibrate": ("evaluation.calibration", "choose a run's thresholds on nodules that it wasn't fitted to"),
    "evaluate": ("evaluation.evaluate", "compare a run's or a bundle's masks in 3D with the readers'"),
    "pool": ("evaluation.folds", "pool the evaluations of several folds into one, with intervals"),
    "export": ("evaluation.export", "write a run as a model bundle for 3D Slicer and Python"),
    "experiment": ("experiments.runner", "run a table or figure of the papers: train, predict and score its networks"),
    "job": ("experiments.jobs", "run one prepared job of an experiment (`experiment` calls this)"),
    "report": ("report.cli", "write pages with the tables and figures of the shipped results, or of your experiments"),
    "archive": ("report.study", "put the results of your experiments beside the shipped ones"),
}

_EPILOG = """examples (DATA is the folder that prepare-lidc wrote):
  python -m Training train ugsnet-compact --data DATA --fold 0 --output runs/compact-0
  python -m Training calibrate runs/compact-0 --data DATA
  python -m Training evaluate runs/compact-0 --data DATA --fold 0 --jitter 10
  python -m Training pool runs/compact-0/evaluation.json runs/compact-1/evaluation.json --output folds.json
  python -m Training export runs/compact-0 --output my-model --version 1.0
  python -m Training experiment table1 --data DATA --profile compact
  python -m Training report
  torchrun --nproc-per-node 2 -m Training train ugsnet-compact --data DATA --fold 0    (train on two GPUs)

Exit status: 0 done, 1 the input can't be processed (one line on standard error says which and why), 2 wrong usage.
"""

# What the system says about a path that the user gave: no defect of ours.
_PATH_ERRORS = (PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError)


def make_parser(commands: Sequence[str] = tuple(COMMANDS)) -> argparse.ArgumentParser:
    """The parser of the command line, with the arguments of these commands; the others are listed only.

    The module of a command is imported for its arguments, and with it what the command needs, so that listing the
    commands stays fast.
    """
    parser = argparse.ArgumentParser(
        prog="python -m Training",
        description="Train, calibrate, evaluate and export networks that segment lung nodules with several readers.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")
    for name, (_, purpose) in COMMANDS.items():
        own = parsers.add_parser(name, help=purpose, description=f"{purpose[0].upper()}{purpose[1:]}.")
        if name in commands:
            _module(name).add_arguments(own)
    return parser


def _module(command: str) -> ModuleType:
    return import_module(f".{COMMANDS[command][0]}", __package__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0 done, 1 the input can't be processed, 2 wrong usage."""
    print_any_name()
    given = sys.argv[1:] if arguments is None else list(arguments)
    args = make_parser(given[:1]).parse_args(given)
    try:
        return _module(args.command).run(args)
    except (NoduleError, *_PATH_ERRORS) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command resumes from the last checkpoint", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
