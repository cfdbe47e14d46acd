"""The structure of the code: imports go downward only, files and functions stay small, light commands stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "curiosft_cli"
# From the lowest package up. A package imports itself and the packages of its row, all of them lower.
MAY_IMPORT: dict[str, set[str]] = {
    "objectives": set(),
    "run": {"objectives"},
    "data": {"run"},
    "grading": {"data", "run"},
    "evaluation": {"grading", "data", "run"},
    "engine": {"run"},
    "train": {"objectives", "data", "run"},
    "stages": {"objectives", "run", "data", "grading", "evaluation", "engine", "train"},
    "tools": {"objectives", "run", "data", "grading", "evaluation", "engine", "train", "stages"},
    "cli": {"objectives", "run", "data", "grading", "evaluation", "engine", "train", "stages", "tools"},
}
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_STAGE_BODY_LINES = 120
HEAVY = (
    "torch",
    "transformers",
    "vllm",
    "openai",
    "datasets",
    "accelerate",
    "sympy",
    "math_verify",
    "pydantic",
    "rich",
)

FILES = sorted(PACKAGE.rglob("*.py"))


def package(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> list[str]:
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_downward(path: Path) -> None:
    here = package(path)
    for name in imports(ast.parse(path.read_text())):
        parts = name.split(".")
        if parts[0] == "curiosft_cli" and len(parts) > 1:
            assert parts[1] == here or parts[1] in MAY_IMPORT.get(here, set()), f"{here} imports {name}"
        if parts[0] == "vllm":
            assert here == "engine", f"{path.name} imports vllm outside engine/"
        if parts[0] == "torch":
            light = here in {"run", "data", "grading", "evaluation", "cli"}
            assert not light or (here == "run" and path.name in {"launch.py", "device.py"}), f"{path} imports torch"


def test_the_configuration_alone_reads_objectives() -> None:
    """`config.py` for names and parameters; `sft.py` for the temperature's settings, which are keys themselves."""
    users = {
        path.name
        for path in (PACKAGE / "run").rglob("*.py")
        if any(name.startswith("curiosft_cli.objectives") for name in imports(ast.parse(path.read_text())))
    }
    assert users == {"config.py", "sft.py"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_sizes(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= MAX_FILE_LINES
    limit = MAX_STAGE_BODY_LINES if package(path) == "stages" else MAX_FUNCTION_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= limit, f"{node.name} has {lines} lines"


def test_no_module_for_everything() -> None:
    assert not [path for path in FILES if path.stem in {"utils", "helpers", "common", "misc"}]


def modules_after(code: str) -> set[str]:
    """Top-level modules that are loaded once `code` has run in a fresh interpreter."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"{code}\nimport sys\nprint('\\n'.join(sorted({{m.split('.')[0] for m in sys.modules}})))",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


RUN_CLI = """
import sys
from curiosft_cli import cli
sys.argv = ["curiosft", *{arguments!r}]
try:
    cli.main()
except SystemExit as stop:
    assert not stop.code, stop.code
"""


def test_help_loads_nothing_heavy() -> None:
    assert not modules_after(RUN_CLI.format(arguments=["--help"])) & set(HEAVY)


@pytest.mark.parametrize(
    "arguments",
    [
        ["config", "show", "quickstart"],
        ["config", "check", "curio"],
        ["config", "schema"],
        ["data", "check", "arithmetic:train:5", "check.depth=quick"],
    ],
)
def test_light_commands_leave_torch_out(arguments: list[str]) -> None:
    assert not modules_after(RUN_CLI.format(arguments=arguments)) & {"torch", "transformers", "vllm", "openai"}


@pytest.mark.parametrize("modules", ["grading.grade, curiosft_cli.grading.pool", "tools.grade", "tools.compare"])
def test_grading_and_comparing_leave_torch_out(modules: str) -> None:
    code = f"import curiosft_cli.{modules}"
    assert not modules_after(code) & {"torch", "transformers", "vllm", "openai"}
