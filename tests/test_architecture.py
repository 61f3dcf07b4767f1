"""The law of imports, and what the house promises about its own shape."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "askwell"

# A room may import only rooms that stand above it. docs/architecture.md shows the same list.
ROOMS = [
    "__init__",
    "errors",
    "records",
    "texts",
    "jsonl",
    "sheets",
    "attributes",
    "recipes",
    "runs",
    "statistics",
    "mock_endpoint",
    "llm",
    "sources",
    "clinic",
    "rendering",
    "weights",
    "embeddings",
    "decoding",
    "generation",
    "local_endpoint",
    "endpoints",
    "labelling",
    "grading",
    "training",
    "interview",
    "evaluation",
    "studies",
    "cli",
]
# Only these may need torch or scikit-learn; the rest is the light core.
HEAVY = {"torch", "transformers", "peft", "accelerate", "trl", "sklearn", "scipy", "tokenizers", "safetensors"}
HEAVY_ROOMS = {"rendering", "weights", "embeddings", "decoding", "generation", "grading", "training"}

MODULES = sorted(SOURCE.rglob("*.py"))


def room_of(module: Path) -> str:
    return module.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> list[str]:
    """Every module that the code imports, at whatever depth, late and TYPE_CHECKING imports included."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def breaches(module: Path, tree: ast.AST) -> list[str]:
    here = ROOMS.index(room_of(module))
    found = []
    for name in imported(tree):
        parts = name.split(".")
        if parts[0] == "askwell" and len(parts) > 1:
            room = parts[1] if parts[1] in ROOMS else "__init__"
            if ROOMS.index(room) > here:
                found.append(f"{module.relative_to(ROOT)} imports {name}")
        if parts[0] in HEAVY and room_of(module) not in HEAVY_ROOMS:
            found.append(f"{module.relative_to(ROOT)} imports {name}, which the light core does without")
    return found


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_room_imports_only_rooms_above_it(module):
    assert breaches(module, ast.parse(module.read_text())) == []


def test_the_law_sees_late_and_type_checking_imports():
    code = "def f():\n    from askwell.training import sft\nif TYPE_CHECKING:\n    import askwell.cli\nimport torch\n"
    assert len(breaches(SOURCE / "sources" / "sgd.py", ast.parse(code))) == 3


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_every_module_says_what_it_does(module):
    assert ast.get_docstring(ast.parse(module.read_text()))


def test_no_room_without_a_name_from_the_domain():
    assert {path.stem for path in MODULES} & {"utils", "util", "common", "helpers", "helper", "misc"} == set()
    assert {room_of(module) for module in MODULES} == set(ROOMS)


def test_the_architecture_page_shows_the_same_law():
    page = (ROOT / "docs" / "architecture.md").read_text()
    drawn = page.split("```text\n")[1].split("```")[0].splitlines()
    rooms = [line.split()[0].removesuffix(".py").rstrip("/") for line in drawn if line and not line.startswith(" ")]
    assert rooms == ROOMS[1:]


def test_the_readme_shows_every_module_and_no_other():
    tree = (ROOT / "README.md").read_text().split("```text\nsrc/askwell/")[1].split("```")[0]
    shown, room = set(), ""
    for line in tree.splitlines()[1:]:
        if not line.strip():
            continue
        name = line.split()[0]
        if line.startswith("  ") and not line.startswith("    "):
            room = name if name.endswith("/") else ""
            shown |= set() if room else {name}
        else:
            shown.add(room + name)
    actual = {str(path.relative_to(SOURCE)) for path in MODULES if path.name != "__init__.py"}
    actual |= {
        str(path.relative_to(SOURCE)) for path in (SOURCE / "texts").rglob("*") if path.suffix in (".md", ".toml")
    }
    assert shown == actual
