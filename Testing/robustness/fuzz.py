"""Fuzzing: thousands of damaged inputs, each of which must be refused in one line, read right, or warned of.

Every input is a sound one with something wrong: DICOM series, image files, segmentations, tables, configurations and
model bundles with bytes flipped, files cut off, values out of range, keys doubled. It is made from its kind and its
number alone, so that any input can be had again on any machine.

An input is read in a child process through the library's public functions. What may come of it:

  refused        one of the project's own errors, in one line that names the input
  same           the result of the undisturbed input, within 2 %
  warned         another result, and a warning
  nothing there  nothing was found at the point, which is what a user would be told
  as it says     another result, which nobody could know better: the file's only header says so (an image of which
                 the voxel size was changed is another image). Readers that know nothing of the product decide that.

and what is a failure, for which the exit status is 1:

  silent         another result without a warning
  exception      any other exception
  no line        an error that has several lines, is too long, or doesn't name the input
  abort, hang    the process ended, or took longer than 20 seconds

Failing inputs are kept with the command that repeats them.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
for _folder in (HERE, ROOT, ROOT / "LungNoduleUncertainty", ROOT / "SoftMaskLabeler"):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))

from kinds import KINDS  # noqa: E402  found through the folders above
from trial import VERDICTS, Verdict, attempt, build  # noqa: E402

TIMEOUT, LIFE = 20.0, 1000  # seconds for an input; inputs for a child process
_EPILOG = """examples:
  python Testing/robustness/fuzz.py --seconds 300              five minutes of all kinds
  python Testing/robustness/fuzz.py --count 10000              the same 10,000 inputs on every machine
  python Testing/robustness/fuzz.py --count 500 --first 90000  other ones
  python Testing/robustness/fuzz.py --kinds dicom nrrd --count 200
  python Testing/robustness/fuzz.py --only dicom 123           one input again, in this process: for a debugger
  python Testing/robustness/fuzz.py --make dicom 123 FOLDER    one input's files
"""


class Child:
    """A child process that tries inputs one after the other."""

    def __init__(self, script: Path = HERE / "worker.py") -> None:
        handle, self.log = tempfile.mkstemp(prefix="fuzz-", suffix=".log")
        os.close(handle)
        paths = [str(p) for p in (HERE, ROOT, ROOT / "LungNoduleUncertainty", ROOT / "SoftMaskLabeler")]
        variables = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        # Nothing of the user's is read or written.
        variables["LUNG_NODULE_UNCERTAINTY_MODELS"] = str(Path(tempfile.gettempdir()) / "fuzz-no-models")
        self.process = subprocess.Popen(
            [sys.executable, str(script), self.log],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=variables,
        )
        self.answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()
        self.tried = 0

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.answers.put(line)
        self.answers.put("")

    def _answer(self) -> str:
        """The next line; `queue.Empty` after too long, which is time that the process has worked, on a busy machine."""
        begun = self._seconds()
        for _ in range(30):
            try:
                # The first one waits for the imports, too.
                return self.answers.get(timeout=TIMEOUT if self.tried > 1 else 3 * TIMEOUT)
            except queue.Empty:
                worked = self._seconds()
                if begun is None or worked is None or worked - begun >= TIMEOUT:
                    raise
        raise queue.Empty

    def _seconds(self) -> float | None:
        """Seconds that the process has worked; None where the system doesn't tell."""
        try:
            words = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
            return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
        except (OSError, ValueError, IndexError):
            return None

    def attempt(self, name: str, number: int) -> Verdict:
        """What became of an input, also where it ended the process."""
        assert self.process.stdin is not None
        self.tried += 1
        try:
            self.process.stdin.write(f"{name} {number}\n")
            self.process.stdin.flush()
            line = self._answer()
        except queue.Empty:
            self.close()
            return Verdict(name, number, "hang", detail=f"no answer after {TIMEOUT:.0f} s", group=f"{name}: hang")
        except OSError:
            line = ""
        if line:
            return Verdict(**json.loads(line))
        status = self.process.wait()
        last = Path(self.log).read_text(encoding="utf-8", errors="replace").split("Extension modules:")[0].strip()
        what = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        self.close()
        if status == 1 and "the undisturbed input" in last:
            raise SystemExit(last.splitlines()[-1])
        return Verdict(name, number, "abort", detail=f"{what}: {last[:900]}", group=f"{name}: {what}")

    @property
    def alive(self) -> bool:
        """Whether it can try another one."""
        return self.process.poll() is None and self.tried < LIFE

    def close(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.wait()
        Path(self.log).unlink(missing_ok=True)


def schedule(names: Sequence[str], first: int) -> Iterator[tuple[str, int]]:
    """Kinds in proportion to their shares, evenly mixed, each with its numbers from `first` on."""
    shares = {name: KINDS[name].share for name in names}
    owed = dict.fromkeys(names, 0.0)
    numbers = dict.fromkeys(names, first)
    while True:
        for name in names:
            owed[name] += shares[name]
        name = max(names, key=lambda n: owed[n])
        owed[name] -= sum(shares.values())
        yield name, numbers[name]
        numbers[name] += 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python Testing/robustness/fuzz.py",
        description=__doc__,
        epilog=_EPILOG + "\nkinds:\n" + "\n".join(f"  {name:<15}{kind.about}" for name, kind in KINDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    much = parser.add_mutually_exclusive_group()
    much.add_argument("--count", type=int, metavar="N", help="so many inputs (default: 1000)")
    much.add_argument("--seconds", type=float, metavar="S", help="as many as fit into so many seconds")
    much.add_argument("--only", nargs=2, metavar=("KIND", "NUMBER"), help="one input, in this process")
    much.add_argument("--make", nargs=3, metavar=("KIND", "NUMBER", "FOLDER"), help="make one input's files, no more")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), metavar="KIND", help="these kinds alone")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of each kind's first input (0)")
    parser.add_argument(
        "--failures", type=Path, default=Path("fuzz-failures"), metavar="DIR", help="where failing inputs are kept"
    )
    parser.add_argument("--log", type=Path, metavar="FILE", help="every input with its verdict, a line of JSON each")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    return parser


def run(
    names: Sequence[str], first: int = 0, count: int | None = None, seconds: float | None = None, quiet: bool = True
) -> Iterator[Verdict]:
    """Tries inputs in child processes, `count` of them or as many as fit into `seconds`."""
    begun, child, failed = time.monotonic(), None, 0
    try:
        for done, (name, number) in enumerate(schedule(names, first)):
            spent = time.monotonic() - begun
            if (count is not None and done >= count) or (seconds is not None and spent >= seconds):
                return
            if child is None or not child.alive:
                if child is not None:
                    child.close()
                child = Child()
            verdict = child.attempt(name, number)
            failed += not verdict.good
            yield verdict
            if not quiet and (done % 50 == 49 or not verdict.good):
                print(f"\r{done + 1} inputs, {failed} failures, {spent:.0f} s ", end="", file=sys.stderr, flush=True)
    finally:
        if child is not None:
            child.close()
        if not quiet:
            print(file=sys.stderr)


def _keep(verdict: Verdict, folder: Path) -> None:
    """A failing input's files, with what happened and how to repeat it."""
    target = folder / f"{verdict.kind}-{verdict.number}"
    shutil.rmtree(target, ignore_errors=True)
    (target / "input").mkdir(parents=True)
    try:
        about = build(verdict.kind, verdict.number, target / "input")[2]
    except Exception as error:  # what failed was the making
        about = repr(error)
    lines = (
        f"{verdict.kind} {verdict.number}: {verdict.verdict}",
        f"damage: {about}",
        f"what happened: {verdict.detail}",
        f"again: python Testing/robustness/fuzz.py --only {verdict.kind} {verdict.number}",
    )
    (target / "about.txt").write_text("\n".join(lines) + "\n", encoding="utf-8", errors="replace")


def summary(verdicts: Sequence[Verdict], seconds: float) -> str:
    """A table of kinds and verdicts, why differences were excused, and the failures by what they have in common."""
    used = [v for v in VERDICTS if any(one.verdict == v for one in verdicts)]
    counts = Counter((one.kind, one.verdict) for one in verdicts)
    names = [name for name in KINDS if any(one.kind == name for one in verdicts)]
    lines = [f"{'':<15}" + "".join(f"{v:>15}" for v in ("inputs", *used))]
    for name in names:
        total = sum(counts[name, v] for v in used)
        lines.append(f"{name:<15}{total:>15}" + "".join(f"{counts[name, v] or '':>15}" for v in used))
    totals = Counter(one.verdict for one in verdicts)
    lines.append(f"{'all':<15}{len(verdicts):>15}" + "".join(f"{totals[v]:>15}" for v in used))
    excused = Counter(KINDS[one.kind].reason for one in verdicts if one.verdict == "as it says")
    if excused:
        lines += ["", "as it says, because"] + [f"{count:>7}  {reason}" for reason, count in excused.most_common()]
    failures = [one for one in verdicts if not one.good]
    groups = Counter((one.verdict, one.group) for one in failures)
    for (verdict, group), count in groups.most_common():
        example = next(one for one in failures if (one.verdict, one.group) == (verdict, group))
        lines += ["", f"{count} x {verdict}: {group}"]
        lines += [f"    {example.kind} {example.number}: {example.about[:160]}", f"    {example.detail[:240]!r}"]
    lines += ["", f"{len(verdicts)} inputs in {seconds:.0f} s, {len(failures)} failures"]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 where every input was as it should be, 1 otherwise."""
    parser = _parser()
    args = parser.parse_args(argv)
    wanted = args.only or args.make
    if wanted and (wanted[0] not in KINDS or not wanted[1].isdigit()):
        parser.error(f"{wanted[0]} {wanted[1]}: a kind and a number are wanted; the kinds are {', '.join(KINDS)}")
    if args.only:
        verdict = attempt(args.only[0], int(args.only[1]))
        print(f"{verdict.verdict}\ndamage: {verdict.about}\n{verdict.detail}")
        return 0 if verdict.good else 1
    if args.make:
        folder = Path(args.make[2])
        folder.mkdir(parents=True)
        _, path, about = build(args.make[0], int(args.make[1]), folder)
        print(f"{path}: {about}")
        return 0
    count = None if args.seconds else args.count or 1000
    begun, verdicts = time.monotonic(), []
    log = args.log.open("w", encoding="utf-8") if args.log else None
    for verdict in run(args.kinds or list(KINDS), args.first, count, args.seconds, args.quiet):
        verdicts.append(verdict)
        if log:
            print(json.dumps(vars(verdict)), file=log, flush=True)
        if not verdict.good:
            _keep(verdict, args.failures)
    print(summary(verdicts, time.monotonic() - begun))
    if any(not one.good for one in verdicts):
        print(f"the failing inputs are in {args.failures}, each with the command that repeats it")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
