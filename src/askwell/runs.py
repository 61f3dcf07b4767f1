"""A run directory: created, resumed or refused; provenance at the start, the manifest last.

    recipe.json       the resolved recipe; `askwell COMMAND DIR/recipe.json` repeats the run
    provenance.json   commit, packages, machine, seed, hashes of inputs and prompts
    code.diff         uncommitted changes, where the code stands in a git checkout that has some
    metrics.jsonl     one line a step
    records.jsonl | checkpoint/ | report.json, report.md
    manifest.json     written last: files with sizes and hashes, counts. Absent: not finished.

The same command on an unfinished directory goes on where it was cut; anything else is refused.
"""

import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from askwell import __version__, jsonl
from askwell.errors import DataError, RunError
from askwell.recipes import Recipe

R = TypeVar("R", bound=BaseModel)
PACKAGES = ("accelerate", "numpy", "peft", "pydantic", "scikit-learn", "tokenizers", "torch", "transformers", "trl")


class Run:
    """An open run directory. `resumed` is true when an earlier attempt left work in it."""

    def __init__(self, path: Path, *, resumed: bool) -> None:
        self.path = path
        self.resumed = resumed
        self.records = path / "records.jsonl"
        self.checkpoint = path / "checkpoint"
        self.report = path / "report.json"
        self._started = time.monotonic()

    def log(self, **metrics: object) -> None:
        """Append one line to metrics.jsonl."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(metrics) + "\n")

    def finish(self, counts: Mapping[str, object]) -> None:
        """Hash every file and write the manifest; from here on the run is finished and never written to again."""
        files = {
            str(file.relative_to(self.path)): {"bytes": file.stat().st_size, "sha256": sha256(file)}
            for file in sorted(self.path.rglob("*"))
            if file.is_file() and file.name not in (".lock", "manifest.json") and "attempt" not in file.parts
        }
        write_json(
            self.path / "manifest.json",
            {"counts": dict(counts), "seconds": round(time.monotonic() - self._started, 2), "files": files},
        )


@contextmanager
def start(recipe: Recipe, command: str, *, inputs: Iterable[Path] = (), prompts: Iterable[Path] = ()) -> Iterator[Run]:
    """Create `recipe.output`, or resume what the same recipe left unfinished there; hold its lock meanwhile.

    Raises RunError where the directory is a finished run, another recipe's, in use, or no run at all.
    """
    path = recipe.output
    resolved = {"command": command, **recipe.model_dump(mode="json")}
    resumed = check(path, resolved)
    path.mkdir(parents=True, exist_ok=True)
    with (path / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(
                f"{path}: another process is at work in it; wait for it, or choose another --output"
            ) from None
        write_json(path / "recipe.json", resolved)
        write_json(path / "provenance.json", provenance(command, recipe.seed, inputs, prompts))
        if diff := git("diff", "HEAD", "--", "src"):
            (path / "code.diff").write_text(diff + "\n", encoding="utf-8")
        yield Run(path, resumed=resumed)


def check(path: Path, resolved: Mapping[str, Any]) -> bool:
    """Whether `path` holds an unfinished run of this recipe (True), or nothing yet (False); else RunError."""
    if not path.exists():
        return False
    if not path.is_dir():
        raise RunError(f"{path}: a file; --output must name a directory to create")
    if not (path / "recipe.json").exists():
        if any(entry.name != ".lock" for entry in path.iterdir()):
            raise RunError(f"{path}: exists and is not a run directory; choose another --output, or empty it")
        return False
    ways_out = "choose another --output, or delete it first"
    if (path / "manifest.json").exists():
        raise RunError(f"{path}: a finished run is never written to; {ways_out}")
    before = json.loads((path / "recipe.json").read_text(encoding="utf-8"))
    fields = sorted(key for key in before.keys() | resolved.keys() if before.get(key) != resolved.get(key))
    fields = [key for key in fields if key != "output"]
    if fields:
        changed = ", ".join(f"{key} {before.get(key)!r} -> {resolved.get(key)!r}" for key in fields)
        raise RunError(
            f"{path}: an unfinished run of another recipe ({changed}); repeat that one to resume it, or {ways_out}"
        )
    return True


def finished(path: Path) -> bool:
    """Whether `path` is a run directory with its manifest."""
    return (path / "manifest.json").is_file()


def records_of(path: Path, kind: type[R], *, made_by: str) -> Iterator[R]:
    """The records of a finished run; `made_by` names the command that makes such a run, for the error."""
    return jsonl.read(records_file(path, made_by=made_by), kind)


def records_file(path: Path, *, made_by: str) -> Path:
    """records.jsonl of a finished run, or a DataError that says what is missing."""
    require(path, made_by=made_by)
    file = path / "records.jsonl"
    if not file.is_file():
        raise DataError(f"{path}: a finished run without records.jsonl; expected the output of `{made_by}`")
    return file


def require(path: Path, *, made_by: str) -> None:
    """Refuse `path` unless it is a finished run of `made_by`."""
    if not path.is_dir():
        raise DataError(f"{path}: no such directory; make it with `{made_by} --output {path}`")
    if not finished(path):
        raise DataError(f"{path}: not a finished run (no manifest.json); run its `{made_by}` again, which resumes it")
    recipe = path / "recipe.json"
    command = json.loads(recipe.read_text(encoding="utf-8")).get("command") if recipe.is_file() else None
    if command and f"askwell {command}" != made_by:
        raise DataError(f"{path}: the output of `askwell {command}`, where that of `{made_by}` is needed")


def counts_of(path: Path) -> dict[str, Any]:
    """The counts in a finished run's manifest."""
    return json.loads((path / "manifest.json").read_text(encoding="utf-8"))["counts"]


def provenance(command: str, seed: int, inputs: Iterable[Path], prompts: Iterable[Path]) -> dict[str, Any]:
    """What made this run: code, packages, machine, seed, hashes of what it reads."""
    return {
        "command": command,
        "argv": sys.argv[1:],
        "seed": seed,
        "askwell": __version__,
        "commit": git("rev-parse", "HEAD"),
        "dirty": bool(git("status", "--porcelain")),
        "python": platform.python_version(),
        "packages": versions(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "inputs": {str(path): sha256(path) for path in inputs if path.exists()},
        "prompts": {path.name: sha256(path) for path in prompts},
    }


def versions() -> dict[str, str]:
    """Versions of the packages that can change a result, read without importing them."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def git(*arguments: str) -> str | None:
    """What git says of the checkout that this code stands in; None outside one."""
    top = Path(__file__).resolve().parents[2]
    if not (top / ".git").exists() or shutil.which("git") is None:
        return None
    answer = subprocess.run(["git", "-C", str(top), *arguments], capture_output=True, text=True, check=False)
    return answer.stdout.strip() if answer.returncode == 0 else None


def sha256(path: Path) -> str:
    """Hash of a file, or of a folder's files with their names."""
    digest = hashlib.sha256()
    if path.is_dir():
        manifest = path / "manifest.json"
        if manifest.is_file():
            return sha256(manifest)
        for file in sorted(entry for entry in path.rglob("*") if entry.is_file()):
            digest.update(f"{file.relative_to(path)}\0{sha256(file)}\n".encode())
        return digest.hexdigest()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_json(path: Path, value: object) -> None:
    """Write JSON whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
