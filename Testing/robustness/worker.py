"""A child process that tries inputs, so that one that ends the process, hangs or takes all memory is known by its name.

It reads lines `KIND NUMBER` and answers each with a line of JSON. What C++ code prints goes to a file, in which the
last words before an abort are found.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import sys
from dataclasses import asdict
from pathlib import Path

MEMORY = 2 << 30  # bytes beyond what the process has when it begins


def _limit_memory() -> None:
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (ImportError, OSError):  # not Linux: there is no such limit
        return
    most = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main(log: str) -> None:
    """Answers until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    words = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(words, 1)
    os.dup2(words, 2)
    faulthandler.enable()
    import torch

    from trial import attempt

    logging.disable(logging.CRITICAL)

    torch.set_num_threads(1)
    _limit_memory()
    for line in sys.stdin:
        name, number = line.split()
        answers.write(json.dumps(asdict(attempt(name, int(number)))) + "\n")
        answers.flush()
        os.ftruncate(words, 0)
        os.lseek(words, 0, os.SEEK_SET)


if __name__ == "__main__":
    main(sys.argv[1])
