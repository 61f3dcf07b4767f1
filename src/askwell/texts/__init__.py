"""Every sentence that a model reads, as files."""

from pathlib import Path

from askwell.errors import RecipeError

PROMPTS = Path(__file__).parent / "prompts"


def prompt_file(name: str) -> Path:
    """The file of a prompt by name. Raises RecipeError with the names that exist."""
    file = PROMPTS / f"{name}.md"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in PROMPTS.glob("*.md")))
        raise RecipeError(f"prompt: no file {name!r} in {PROMPTS}; known prompts: {known}")
    return file
