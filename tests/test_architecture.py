"""The structure of the code: imports go downward only, files and functions stay small, light commands stay light."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from graphlib import TopologicalSorter
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
    "pint",
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
    """`config.py` for names and parameters, `objective_file.py` for the user's own; `sft.py` for the temperature's
    settings, which are keys themselves.
    """
    users = {
        path.name
        for path in (PACKAGE / "run").rglob("*.py")
        if any(name.startswith("curiosft_cli.objectives") for name in imports(ast.parse(path.read_text())))
    }
    assert users == {"config.py", "objective_file.py", "sft.py"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_sizes(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= MAX_FILE_LINES
    limit = MAX_STAGE_BODY_LINES if package(path) == "stages" else MAX_FUNCTION_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= limit, f"{node.name} has {lines} lines"


def test_all_text_is_printed_in_one_place() -> None:
    """By `show`, which lets no text command the terminal. The grader's process prints names of classes only."""
    printing = {
        path.relative_to(PACKAGE).as_posix()
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    assert printing == {"run/text.py", "grading/pool.py"}


def module_name(path: Path) -> str:
    parts = ("curiosft_cli", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_no_circle_even_through_imports_for_types() -> None:
    modules = {module_name(path): ast.parse(path.read_text()) for path in FILES}
    graph: dict[str, set[str]] = {}
    for name, tree in modules.items():
        graph[name] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module in modules:
                submodules = {f"{node.module}.{alias.name}" for alias in node.names} & modules.keys()
                graph[name] |= submodules or {node.module}
            elif isinstance(node, ast.Import):
                graph[name] |= {alias.name for alias in node.names} & modules.keys()
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_no_class_has_the_name_of_another() -> None:
    places: dict[str, list[str]] = {}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(module_name(path))
    assert not {name: where for name, where in places.items() if len(where) > 1}


def test_no_file_shadows_a_library_that_its_package_uses() -> None:
    for folder in {path.parent for path in FILES}:
        used = {name.split(".")[0] for path in folder.rglob("*.py") for name in imports(ast.parse(path.read_text()))}
        own = {entry.stem for entry in folder.iterdir() if entry.suffix == ".py" or entry.is_dir()}
        assert not own & ((used | set(HEAVY)) - {"curiosft_cli"}), folder


def test_modules_named_in_strings_exist() -> None:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
            if re.fullmatch(r"curiosft_cli(?:\.\w+)+", text):
                assert importlib.util.find_spec(text), f"{path} names {text}"


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
from curiosft_cli.cli import main as cli
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
