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
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from askwell import __version__, jsonl, recipes
from askwell.errors import DataError, RunError
from askwell.recipes import Recipe
from askwell.records import Conversation, QuestionSet, Thread, Turn

R = TypeVar("R", bound=BaseModel)
S = TypeVar("S", Conversation, Thread, Turn, QuestionSet)
PACKAGES = ("accelerate", "numpy", "peft", "pydantic", "scikit-learn", "tokenizers", "torch", "transformers", "trl")


class Stage(Protocol):
    """A module that carries out a command. `inputs` refuses what cannot be read, before anything is created."""

    def inputs(self, recipe: Any) -> list[Path]:
        """Files and run directories that are read; their hashes go to provenance."""
        ...

    def plan(self, recipe: Any) -> dict[str, object]:
        """What --dry-run prints; writes nothing."""
        ...

    def run(self, recipe: Any, run: "Run") -> dict[str, object]:
        """Do the work in `run.path`; returns the counts for the manifest."""
        ...


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


def carry_out(stage: Stage, recipe: Recipe, command: str) -> dict[str, object]:
    """Run a stage to its end in `recipe.output`; returns its counts."""
    with start(recipe, command, inputs=stage.inputs(recipe)) as run:
        counts = stage.run(recipe, run)
        run.finish(counts)
    return counts


def ensure(stage: Stage, recipe: Recipe, command: str) -> dict[str, Any]:
    """As `carry_out`, but a finished run of the same recipe is used as it is."""
    path = recipe.output
    if finished(path):
        if changed := changes(path, recipe, command):
            raise RunError(
                f"{path}: a finished run of another recipe ({changed}); choose another --output, or delete it first"
            )
        return counts_of(path)
    return carry_out(stage, recipe, command)


@contextmanager
def start(recipe: Recipe, command: str, *, inputs: Iterable[Path] = (), prompts: Iterable[Path] = ()) -> Iterator[Run]:
    """Create `recipe.output`, or resume what the same recipe left unfinished there; hold its lock meanwhile.

    Raises RunError where the directory is a finished run, another recipe's, in use, or no run at all.
    """
    path = recipe.output
    resumed = check(recipe, command)
    path.mkdir(parents=True, exist_ok=True)
    with (path / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(
                f"{path}: another process is at work in it; wait for it, or choose another --output"
            ) from None
        write_json(path / "recipe.json", resolved(recipe, command))
        write_json(path / "provenance.json", provenance(command, recipe.seed, inputs, prompts))
        if diff := git("diff", "HEAD", "--", "src"):
            write_text(path / "code.diff", diff + "\n")
        else:
            (path / "code.diff").unlink(missing_ok=True)
        # Whole, so that a study's stages have the same recipes however its folder was named, and resume from anywhere.
        yield Run(path.absolute(), resumed=resumed)


def check(recipe: Recipe, command: str) -> bool:
    """Whether `recipe.output` holds an unfinished run of this recipe (True) or nothing yet (False); else RunError."""
    path = recipe.output
    if not path.exists():
        return False
    if not path.is_dir():
        raise RunError(f"{path}: a file; --output must name a directory to create")
    if not (path / "recipe.json").exists():
        if any(entry.name != ".lock" for entry in path.iterdir()):
            raise RunError(f"{path}: exists and is not a run directory; choose another --output, or empty it")
        return False
    ways_out = "choose another --output, or delete it first"
    if finished(path):
        raise RunError(f"{path}: a finished run is never written to; {ways_out}")
    if changed := changes(path, recipe, command):
        raise RunError(
            f"{path}: an unfinished run of another recipe ({changed}); repeat that one to resume it, or {ways_out}"
        )
    return True


def resolved(recipe: Recipe, command: str) -> dict[str, Any]:
    """What recipe.json holds: the command and every field, nulls kept."""
    return {"command": command, **recipe.model_dump(mode="json")}


def changes(path: Path, recipe: Recipe, command: str) -> str:
    """Fields in which a recipe differs from that of the run in `path`, as `a.b old -> new`; what leaves the outcome
    as it is does not matter, nor where the run directory stands."""
    before = json.loads((path / "recipe.json").read_text(encoding="utf-8"))
    now = {"command": command, **recipes.essential(recipe)}
    with suppress(ValidationError):  # a recipe of another command, or of an older version, is compared as it stands
        fields = {name: value for name, value in before.items() if name != "command"}
        before = {"command": before.get("command"), **recipes.essential(type(recipe).model_validate(fields))}
    before, now = leaves(before), leaves(now)
    changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    return ", ".join(f"{key} {before.get(key)!r} -> {now.get(key)!r}" for key in changed if key != "output")


def leaves(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """A recipe's values by their dotted names, as flags spell them."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= leaves(value, f"{above}{name}.") if isinstance(value, dict) else {above + name: value}
    return found


def finished(path: Path) -> bool:
    """Whether `path` is a run directory with its manifest."""
    return (path / "manifest.json").is_file()


def main_process() -> bool:
    """Whether this process holds the run directory: the only one, or the first of those of `accelerate launch`."""
    return int(os.environ.get("RANK", "0")) == 0


def processes() -> int:
    """How many share the work. From the launcher itself: a PartialState made before TrainingArguments keeps them from
    setting up the processes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def records_of(path: Path, kind: type[R], *, made_by: str | tuple[str, ...]) -> Iterator[R]:
    """The records of a finished run; `made_by` names the command that makes such a run, or each of several."""
    return jsonl.read(records_file(path, made_by=made_by), kind)


def sample_of(
    path: Path, kind: type[S], *, made_by: str | tuple[str, ...], split: str, limit: int | None
) -> Iterator[S]:
    """The records of one split, of at most `limit` conversations.

    Those are drawn by the hash of their id, not taken from the top, where a corpus may hold one kind alone; a larger
    limit draws the same ones and more.
    """
    records = records_of(path, kind, made_by=made_by)
    if limit is not None:
        # A first pass over the ids, so that memory does not grow with the records.
        ids = {conversation_of(record) for record in records if record.split == split}
        chosen = set(sorted(ids, key=lambda id: hashlib.sha256(id.encode()).digest())[:limit])
        records = (r for r in records_of(path, kind, made_by=made_by) if conversation_of(r) in chosen)
    return (record for record in records if record.split == split)


def conversation_of(record: Conversation | Thread | Turn | QuestionSet) -> str:
    """The id of the conversation that a record is, or belongs to."""
    return record.id if isinstance(record, Conversation) else record.conversation_id


def records_file(path: Path, *, made_by: str | tuple[str, ...]) -> Path:
    """records.jsonl of a finished run, or a DataError that says what is missing."""
    require(path, made_by=made_by)
    file = path / "records.jsonl"
    if not file.is_file():
        raise DataError(f"{path}: a finished run without records.jsonl; expected the output of {named(made_by)}")
    return file


def redacted(path: Path) -> bool:
    """Whether the conversations or turns of a finished run were redacted when they were read."""
    with (path / "records.jsonl").open("rb") as file:
        return bool(json.loads(file.readline() or b"{}").get("redacted", False))


def require(path: Path, *, made_by: str | tuple[str, ...]) -> None:
    """Refuse `path` unless it is a finished run of `made_by`, or of one of several commands."""
    if not path.is_dir():
        raise DataError(f"{path}: no such directory; make it with {named(made_by)}, as its --output")
    if not finished(path):
        raise DataError(f"{path}: not a finished run (no manifest.json); run its {named(made_by)} again to resume it")
    command = recipe_of(path).get("command")
    if command and f"askwell {command}" not in commands(made_by):
        raise DataError(f"{path}: the output of `askwell {command}`, where that of {named(made_by)} is needed")


def commands(made_by: str | tuple[str, ...]) -> tuple[str, ...]:
    """One command, or several, as several."""
    return (made_by,) if isinstance(made_by, str) else made_by


def named(made_by: str | tuple[str, ...]) -> str:
    """The commands in the words of an error."""
    return " or ".join(f"`{command}`" for command in commands(made_by))


def recipe_of(path: Path) -> dict[str, Any]:
    """The command and fields of a run, whatever command it is; empty for what is no run directory."""
    file = path / "recipe.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def manifest_of(path: Path) -> dict[str, Any]:
    """The manifest of a finished run: counts, seconds, files."""
    return json.loads((path / "manifest.json").read_text(encoding="utf-8"))


def counts_of(path: Path) -> dict[str, Any]:
    """The counts in a finished run's manifest."""
    return manifest_of(path)["counts"]


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
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all: temporary file, fsync, rename."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
