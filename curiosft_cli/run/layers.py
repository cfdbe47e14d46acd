"""The files behind a configuration: a TOML file or a recipe, and what it extends.

`extends = "curio"` names a recipe; `extends = "mine.toml"` a file, relative to the file that says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from curiosft_cli.run.differences import Tree, merge
from curiosft_cli.run.errors import CurioError, nearest
from curiosft_cli.run.files import check_regular
from curiosft_cli.run.text import shortened
from curiosft_cli.run.values import toml_tree

CONTEXT = ("revision", "max_position_embeddings", "rope_theta")
"""Keys of `[model]` that describe the model that `path` names."""


@dataclass(frozen=True)
class Layer:
    """Values with one origin.

    Attributes:
        origin: the file's or recipe's name, or "command line".
        tree: the values.
        text: of the file, verbatim.
    """

    origin: str
    tree: Tree
    text: str = ""


def recipe_names() -> list[str]:
    """Names of the recipes that ship with the package."""
    folder = resources.files("curiosft_cli") / "recipes"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def read_layers(reference: str) -> list[Layer]:
    """The file or recipe last, before it what it extends.

    Raises:
        CurioError: one of them does not exist, is not TOML, or extends itself.
    """
    layers: list[Layer] = []
    extended_by: str | None = None
    while True:
        text, origin = _read(reference, extended_by)
        if any(layer.origin == origin for layer in layers):
            chain = " -> ".join([*(layer.origin for layer in reversed(layers)), origin])
            raise CurioError(f"{origin} extends itself: {chain}", "Take one `extends` of these out.")
        tree = toml_tree(text, origin)
        base = tree.pop("extends", None)
        layers.insert(0, Layer(origin, tree, text))
        if base is None:
            return layers
        if not isinstance(base, str):
            raise CurioError(
                f"extends = {shortened(base)} in {origin} is not text", "Name one recipe or one .toml file."
            )
        beside = Path(origin).parent / base
        reference, extended_by = str(beside) if base.endswith(".toml") else base, origin


def without_other_models_context(layers: Sequence[Layer]) -> list[Layer]:
    """The layers, without the context settings of a model that a later layer replaces by another."""
    kept: list[Layer] = []
    path: object = None
    for layer in layers:
        model = layer.tree.get("model")
        named = model.get("path") if isinstance(model, dict) else None
        if named not in (None, path):
            kept = [_without_context(earlier) for earlier in kept] if path is not None else kept
            path = named
        kept.append(layer)
    return kept


def merged(layers: Sequence[Layer]) -> Tree:
    """The values of all layers; later ones win."""
    tree: Tree = {}
    for layer in layers:
        tree = merge(tree, layer.tree)
    return tree


def _without_context(layer: Layer) -> Layer:
    model = layer.tree.get("model")
    if not isinstance(model, dict):
        return layer
    return Layer(
        layer.origin,
        {**layer.tree, "model": {key: value for key, value in model.items() if key not in CONTEXT}},
        layer.text,
    )


def _read(reference: str, extended_by: str | None) -> tuple[str, str]:
    """Text and name of a file or recipe; `extended_by` extends it."""
    path = Path(reference)
    names = recipe_names()
    why = f", which {extended_by} extends" if extended_by else ""
    if path.suffix != ".toml" and (extended_by or not path.exists()):
        if reference not in names:
            raise CurioError(
                f"{shortened(reference)}{why} is neither a TOML file nor a recipe ({nearest(reference, names)})",
                "Give the path of a file that ends in .toml, or a recipe's name.",
            )
        return (resources.files("curiosft_cli") / "recipes" / f"{reference}.toml").read_text("utf-8"), reference
    check_regular(path)
    try:
        return path.read_text(encoding="utf-8"), str(path)
    except (OSError, UnicodeDecodeError) as error:
        raise CurioError(f"cannot read the configuration {path}{why}: {error}", "Give a UTF-8 TOML file.") from None
