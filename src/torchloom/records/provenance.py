"""What made a file: the node's parameters, its code, the versions of its packages and the contents of its inputs.

Each node that has run leaves a small record of these, of what it wrote and of how long it took, in records/nodes beside
its outputs: where the data are, or where the results are. A file is stale when its node would not make it the same way
again.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import inspect
import json
import platform
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from kedro.framework.project import pipelines
from kedro.io import AbstractDataset, DataCatalog, DatasetError
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node
from kedro.validation.type_extractor import TypeExtractor
from pydantic import BaseModel

from torchloom.config import DistributedConfig, TrainConfig, own
from torchloom.config.checks import differences
from torchloom.config.entries import names_in, namespaces_in
from torchloom.errors import InputError
from torchloom.records.runs import read_run
from torchloom.system.files import Stamp, atomic_write, contents, contents_within
from torchloom.training.checkpoint import Checkpoint

Function = TypeVar("Function", bound=Callable[..., Any])

# ---- contents ------------------------------------------------------------------------------------------------------


def fingerprint(catalog: DataCatalog, name: str) -> str | None:
    """What tells the contents of a catalog entry from others; None when there are none, or none that last."""
    dataset: Any = catalog.get(name)
    if hasattr(dataset, "fingerprint"):
        try:
            value: str | None = dataset.fingerprint()
            return value
        except InputError:
            return "damaged"
    path = None if hasattr(dataset, "create_connection") else getattr(dataset, "_filepath", None)  # a query has one
    return None if path is None else contents(Path(str(path)))


def _can_tell(catalog: DataCatalog, name: str) -> bool:
    """Whether an entry of the catalog has a `fingerprint`; one of a file that is versioned or remote has none."""
    return hasattr(catalog.get(name), "fingerprint") or fingerprint(catalog, name) is not None


# ---- code ----------------------------------------------------------------------------------------------------------


def code_of(*functions: Callable[..., Any], names: Collection[str] = ()) -> tuple[dict[str, str], dict[str, str]]:
    """What the functions run: a digest for each module of their package, and the versions of all other packages.

    Followed are the definitions (functions, classes, constants) that they name, and that those name in turn, and the
    templates that they name; what else a module says outside of definitions counts with each of them. Of a class whose
    bases are all followed, too, those members count whose names come up in what is followed. Comments, docstrings,
    messages and layout do not count. Where a package's modules are imported by a name that is only known later, as in
    `import_module(f"torchloom.models.{name}")`, those of `names` count, or all when none of them is there; so do those
    of `names` that are dotted paths of a user's own code.
    """
    found: dict[tuple[str, str], Definition] = {}
    others: set[str] = set()
    said: set[str] = set()  # what may be the name of a member
    waiting: dict[str, list[tuple[str, str]]] = {}  # members by name
    left = [place for function in functions for place in _places(function)]
    while left:
        place = left.pop()
        definition = _definition(*place) if place not in found else None
        if definition is None:
            continue
        found[place] = definition
        for target in definition.uses:
            left += _targets(target, place[0].partition(".")[0], names, others)
        for name in definition.said - said:
            left += waiting.pop(name, ())
        said |= definition.said
        for name in definition.members:
            member = (place[0], f"{place[1]}.{name}")
            left += [member] if name in said else []
            waiting.setdefault(name, []).append(member)
    digests: dict[str, Any] = {}
    for module, name in sorted(found):
        digests.setdefault(module, hashlib.sha256()).update(found[module, name].text.encode())
    return {module: digest.hexdigest()[:16] for module, digest in digests.items()}, _versions(frozenset(others))


def _places(function: Any) -> Iterator[tuple[str, str]]:
    """The definitions that a function starts from: of one with arguments bound, their classes too."""
    if isinstance(function, partial):
        yield from _places(function.func)
        yield from _kinds([*function.args, *function.keywords.values()])
    elif hasattr(function, "__self__"):  # a method
        kind = function.__self__ if inspect.isclass(function.__self__) else type(function.__self__)
        yield kind.__module__, kind.__qualname__
        for each in kind.__mro__:
            if function.__name__ in vars(each):
                yield each.__module__, f"{each.__qualname__}.{function.__name__}"
                yield each.__module__, each.__qualname__
                return
    elif bound := getattr(function, "__kwdefaults__", None):  # as a stage has its problem
        yield function.__globals__["__name__"], function.__code__.co_qualname.partition(".")[0]
        yield from _kinds(bound.values())
    else:
        yield function.__module__, function.__qualname__.partition(".")[0]


def _kinds(values: Iterable[Any]) -> Iterator[tuple[str, str]]:
    """The classes of what is bound to a function."""
    for kind in map(type, values):
        if kind.__module__.partition(".")[0] not in {"builtins", *sys.stdlib_module_names}:
            yield kind.__module__, kind.__qualname__


# what is asked of a module that is imported by a name
ENTRIES = {"build", "PROBLEM", "builder", "described", "from_torchvision", "origin", "started"}


def _targets(target: str, package: str, names: Collection[str], others: set[str]) -> Iterator[tuple[str, str]]:
    """The definitions that `target` stands for: `module:name`, `module:*` for all of it, `module.*` by name."""
    module, _, name = target.partition(":")
    if target in {"torchloom.config.own:find", "torchloom.config.own:find_class"}:
        yield module, name
        for place in _own(names, below_ours=name == "find_class"):
            if _is_installed(place[0]):
                others.add(place[0].partition(".")[0])
            else:
                yield place
    elif module.partition(".")[0] != package:
        top = module.partition(".")[0]
        if _is_users(module):
            yield from _targets(target, top, names, others)
        else:
            others.add(top)
    elif module.endswith(".*"):
        folder = _path(module[:-2]).parent
        modules = [
            file.stem for file in [*folder.glob("[!_]*.py"), *(file.parent for file in folder.glob("*/__init__.py"))]
        ]
        known_by = {*names, *(name.partition("/")[0] for name in names)}  # timm/resnet50 is of the module timm
        for stem in [stem for stem in modules if stem in known_by] or modules:
            known = _module(module[:-1] + stem)
            yield from ((module[:-1] + stem, each) for each in ENTRIES & known.keys() or known)
    elif name == "*":
        yield from ((module, each) for each in _module(module))
    elif _path(f"{module}.{name}").is_file():  # a module, imported from its package
        yield from ((f"{module}.{name}", each) for each in _module(f"{module}.{name}"))
    else:
        yield module, name


def _own(names: Collection[str], below_ours: bool) -> Iterator[tuple[str, str]]:
    """What those of `names` lead to that are paths of a user's own code: all, or classes below one of ours."""
    for path in sorted(own.named() & set(names)):
        found = own.find(path)
        ours = inspect.isclass(found) and any(base.__module__.startswith("torchloom.") for base in found.__mro__)
        if ours is below_ours and not (inspect.ismodule(found) and not hasattr(found, "build")):  # a reader is a node
            yield (path, "build") if inspect.ismodule(found) else tuple(path.rsplit(".", 1))  # type: ignore[misc]


def _is_installed(module: str) -> bool:
    """Whether it is in a package that counts by its version."""
    top: Any = sys.modules[module.partition(".")[0]]
    place = str(getattr(top, "__file__", None) or next(iter(getattr(top, "__path__", [])), ""))
    return not place or "site-packages" in place or not _path(module).is_file()


@cache
def _is_users(module: str) -> bool:
    """Whether it is another module of a user's own, which no version stands for."""
    top = module.partition(".")[0]
    return top in sys.modules.keys() - sys.stdlib_module_names - {"torchloom"} and not _is_installed(module)


class Definition:
    """What a module calls by one name: its code, and what that uses, as `_targets` has it."""

    def __init__(self) -> None:
        self.text = ""
        self.uses: set[str] = set()
        self.said: set[str] = set()  # attributes that it names, by `.name` or in getattr
        self.members: set[str] = set()  # of a class, those that are definitions of their own
        self.whole = True  # of a class, whether all of it is one definition, since who uses it is not known


OUTSIDE = "<module>"  # the name of what a module says outside of its definitions


def _definition(module: str, name: str, passed: Sequence[str] = ()) -> Definition | None:
    """What the module calls so, or has from modules of which it imports all."""
    definitions = _module(module)
    if name in definitions:
        return definitions[name]
    found = Definition()
    for origin in [key[1:] for key in definitions if key.startswith("*") and key[1:] not in passed]:
        if _definition(origin, name, [*passed, module]):
            found.uses |= {f"{module}:{OUTSIDE}", f"{origin}:{name}"}
    return found if found.uses else None


@cache
def _path(module: str) -> Path:
    """The module's file, found without importing it; a path where nothing is when it has none."""
    package, *parts = module.split(".")
    top = sys.modules[package]
    if not hasattr(top, "__path__"):  # a module that is no package
        return Path(str(top.__file__), *parts)
    root = Path(next(iter(top.__path__)), *parts)
    package_file = root / "__init__.py"  # as Python has it, before a module, and that before a folder without one
    return package_file if package_file.is_file() else root.with_name(root.name + ".py")


@cache
def _module(module: str) -> dict[str, Definition]:
    """The definitions of a module of a package that is imported; what it only imports is one too.

    `OUTSIDE` is what belongs to all of them, and `*origin` a module of the package of which it imports all.
    """
    if not _path(module).is_file():
        return {}
    tree = ast.parse(_path(module).read_text(encoding="utf-8"))
    imported = {name: target for node in _outside(tree) for name, target in _imports(node, module)}
    definitions: dict[str, Definition] = {}
    for nodes in _statements(tree.body):
        pieces = [("", nodes)]
        whole = not (isinstance(nodes[-1], ast.ClassDef) and _follows(nodes[-1], module, imported, definitions))
        if not whole:
            pieces = _members(nodes, module.startswith("torchloom.") and "config" in module.split("."))
        for member, piece in pieces:
            parts = [part for node in piece for part in ast.walk(_without_texts(node))]
            templates = list(_templates(parts))
            text = "".join([*map(ast.dump, piece), *templates])
            uses = set(_uses(_outer(parts, piece[-1]), module, imported))
            uses |= set(_uses(_inner(piece[-1]), module, imported)) - _arguments(piece[-1])
            said = {*_said(parts), *(word for each in templates for word in re.findall(r"\.(\w+)", each))}
            if not whole:
                said |= {part.id for part in _outer(parts, piece[-1]) if isinstance(part, ast.Name)}
            for name in _defined(nodes, imported):
                definition = definitions.setdefault(f"{name}.{member}" if member else name, Definition())
                definition.text += text
                definition.uses |= uses
                definition.said |= said
                definition.whole = definition.whole and whole
                definition.members |= set() if member else {each for each, _ in pieces if each}
    everything = any(name.startswith("*") for name in imported)
    for definition in definitions.values():
        plain = {use for use in definition.uses if ":" not in use}
        definition.uses -= plain
        definition.uses |= {f"{module}:{name}" for name in (plain if everything else plain & definitions.keys())}
    for name, target in imported.items():
        foreign = name.startswith("*") and target.partition(".")[0] != module.partition(".")[0]
        definitions.setdefault(OUTSIDE if foreign else name, Definition()).uses.add(target)
    if OUTSIDE in definitions:
        for definition in definitions.values():
            definition.uses.add(f"{module}:{OUTSIDE}")
    return definitions


VALIDATORS = {"field_validator", "model_validator"}
PLAIN = {"pydantic:BaseModel", "typing:NamedTuple", "object"}  # bases that call no member by a name of ours


def _follows(node: ast.ClassDef, module: str, imported: Mapping[str, str], known: Mapping[str, Definition]) -> bool:
    """Whether all calls of the class's members are in code that is followed: its bases are plain, or such classes."""
    for base in node.bases:
        name = getattr(base, "id", "")
        target = imported.get(name, name)
        origin, _, inner = target.rpartition(":")
        package = module.partition(".")[0]
        ours = known.get(name) if not origin else None
        if origin.partition(".")[0] in {package, "torchloom"} and target not in PLAIN:
            ours = _module(origin).get(inner)
            if ours is not None and not ours.text:  # imported from where it is defined
                source, _, inner = next(iter(ours.uses - {f"{origin}:{OUTSIDE}"}), ":").rpartition(":")
                ours = _module(source).get(inner) if source else None
        if target not in PLAIN and (ours is None or ours.whole):
            return False
    return not node.keywords


def _members(nodes: list[ast.AST], of_parameters: bool) -> list[tuple[str, list[ast.AST]]]:
    """A class without its members, and each of them; what is called or read by others than its users stays in it."""
    *before, node = nodes
    assert isinstance(node, ast.ClassDef)
    members: dict[str, list[ast.AST]] = {}
    rest: list[ast.stmt] = []
    for part in node.body:
        name = _member(part, of_parameters)
        if name:
            members.setdefault(name, []).append(part)
        else:
            rest.append(part)
    own = ast.ClassDef(
        name=node.name, bases=node.bases, keywords=[], body=rest or [ast.Pass()], decorator_list=node.decorator_list
    )
    return [("", [*before, own]), *members.items()]


def _member(node: ast.stmt, of_parameters: bool) -> str:
    """The name of a method or of an attribute of the class; nothing for fields, and for what is called by no name."""
    if isinstance(node, ast.FunctionDef):
        plain = {"property", "classmethod", "staticmethod", "cached_property"}
        if any(getattr(getattr(each, "func", None), "id", "") in VALIDATORS for each in node.decorator_list):
            return node.name if of_parameters else ""  # which nobody names: what it lets pass is recorded as parameters
        if node.name.startswith(("__", "model_")) or any(
            getattr(each, "id", "") not in plain for each in node.decorator_list
        ):
            return ""
        return node.name
    if isinstance(node, ast.AnnAssign) and "ClassVar" in ast.dump(node.annotation):
        return getattr(node.target, "id", "")
    if isinstance(node, ast.Assign) and len(node.targets) == 1:
        name = getattr(node.targets[0], "id", "")
        return "" if name.startswith(("model_", "__")) else name
    return ""


def _inner(node: ast.AST) -> list[ast.AST]:
    """The parts of a function's body."""
    body = node.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else []
    return [part for statement in body for part in ast.walk(statement)]


def _outer(parts: list[ast.AST], node: ast.AST) -> list[ast.AST]:
    """All other parts of a statement: of a function its defaults, decorators and annotations."""
    inner = set(_inner(node))
    return [part for part in parts if part not in inner]


def _arguments(node: ast.AST) -> set[str]:
    """What a function calls its arguments, whatever else in the module has such a name."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return set()
    every = node.args
    given = [*every.posonlyargs, *every.args, *every.kwonlyargs, every.vararg, every.kwarg]
    return {argument.arg for argument in given if argument}


def _said(parts: list[ast.AST]) -> Iterator[str]:
    for part in parts:
        if isinstance(part, ast.Attribute):
            yield part.attr
        elif isinstance(part, ast.Call) and getattr(part.func, "id", "") in {"getattr", "hasattr"}:
            yield from (
                each.value for each in part.args if isinstance(each, ast.Constant) and isinstance(each.value, str)
            )


DEFINITIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
IMPORTS = ast.Import | ast.ImportFrom
BODIES = {"body", "orelse", "finalbody", "handlers", "cases"}  # the fields of a statement that hold others


def _statements(body: Sequence[ast.AST], before: Sequence[ast.AST] = ()) -> Iterator[list[ast.AST]]:
    """Each statement of the module, those within `if`, `for`, `try` and the like after what these say."""
    for node in body:
        fields = dict(ast.iter_fields(node))
        bodies = BODIES & fields.keys()
        if isinstance(node, DEFINITIONS) or not bodies:
            yield [*before, node]
            continue
        inside = {part for name in bodies for part in fields[name]}
        said = [part for part in ast.iter_child_nodes(node) if part not in inside]
        for name in sorted(bodies):
            where = ast.Constant(f"{type(node).__name__}.{name}")
            yield from _statements(fields[name], [*before, where, *said])


def _outside(tree: ast.Module) -> Iterator[ast.AST]:
    """The imports that hold for the whole module; those for type checkers alone never run."""
    for *before, node in _statements(tree.body):
        checked = [getattr(part, "value", getattr(part, "id", "")) for part in before][:2] == [
            "If.body",
            "TYPE_CHECKING",
        ]
        if isinstance(node, IMPORTS) and not checked:
            yield node


def _defined(nodes: list[ast.AST], imported: Collection[str]) -> list[str]:
    """What a statement, after what stands before it, gives names to; OUTSIDE where it does something else."""
    *before, node = nodes
    if isinstance(node, IMPORTS) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
        return []
    if isinstance(node, DEFINITIONS):
        return [node.name]
    targets = getattr(node, "targets", [getattr(node, "target", getattr(node, "name", None))])
    names = [name for target in targets if target for name in ast.walk(target) if isinstance(name, ast.Name)]
    stored = [name.id for part in before for name in ast.walk(part) if isinstance(name, ast.Name) and _is_stored(name)]
    # what is imported is changed elsewhere, too
    defined = [name.id if _is_stored(name) or name.id not in imported else OUTSIDE for name in names]
    return list(dict.fromkeys([*stored, *(defined or [OUTSIDE])]))


def _is_stored(name: ast.Name) -> bool:
    return isinstance(name.ctx, ast.Store)


def _imports(node: ast.AST, module: str) -> Iterator[tuple[str, str]]:
    """The names that an import binds, with what they stand for."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            name = alias.asname or alias.name.partition(".")[0]
            yield name, f"{alias.name if alias.asname else name}:*"
    elif isinstance(node, ast.ImportFrom):
        package = module if _path(module).name == "__init__.py" else module.rpartition(".")[0]
        base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
        origin = ".".join(part for part in (base, node.module) if part)
        for alias in node.names:
            name = f"*{origin}" if alias.name == "*" else alias.asname or alias.name
            yield name, f"{origin}:{alias.name}"


def _uses(parts: list[ast.AST], module: str, imported: Mapping[str, str]) -> Iterator[str]:
    """What the parts of a statement name: what is imported as a target, all else as a plain name."""
    known = dict(imported)
    for part in parts:
        known.update(_imports(part, module))
    bases = set()
    for part in parts:  # the outer one of two attributes comes first
        if isinstance(part, ast.Attribute) and part not in bases:
            inner, base = _chain(part)
            origin, _, name = known.get(getattr(base, "id", ""), "").partition(":")
            place = origin if name == "*" else f"{origin}.{name}"
            if origin.partition(".")[0] == module.partition(".")[0] and _path(place).is_file():
                bases |= {*inner, base}
                yield _attribute(place, [each.attr for each in reversed(inner)])
    for part in parts:
        if isinstance(part, ast.Name) and part not in bases:
            yield known.get(part.id, part.id)
        elif isinstance(part, ast.JoinedStr) and part.values and isinstance(part.values[0], ast.Constant):
            start = str(part.values[0].value)
            if start.startswith(module.partition(".")[0] + ".") and start.endswith("."):
                yield f"{start}*:*"


def _chain(node: ast.Attribute) -> tuple[list[ast.Attribute], ast.expr]:
    """The attributes of a.b.c, the last first, and a."""
    chain, base = [node], node.value
    while isinstance(base, ast.Attribute):
        chain, base = [*chain, base], base.value
    return chain, base


def _attribute(module: str, names: list[str]) -> str:
    """The target that module.name.name… is, where the first names may be those of modules within."""
    while names and _path(f"{module}.{names[0]}").is_file():
        module, *names = f"{module}.{names[0]}", *names[1:]
    return f"{module}:{names[0] if names else '*'}"


def _templates(parts: list[ast.AST]) -> Iterator[str]:
    """What the templates hold that the parts of a statement name by a string, as reporting.page.read_template does."""
    for part in parts:
        if isinstance(part, ast.Constant) and str(part.value).startswith("templates/"):
            file = Path(__file__).parent.parent / "reporting" / str(part.value)
            yield file.read_text(encoding="utf-8") if file.is_file() else ""


def _without_texts(node: ast.AST) -> ast.AST:
    """Without docstrings, and without the words of messages and descriptions."""
    for part in ast.walk(node):
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            first = part.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                part.body = part.body[1:] or [ast.Pass()]
        for text in _messages(part):
            for inner in ast.walk(text):
                if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
                    inner.value = ""
    return node


def _messages(node: ast.AST) -> Iterator[ast.AST]:
    """What a statement says to people."""
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
        yield from node.exc.args
    elif isinstance(node, ast.Call) and getattr(getattr(node.func, "value", None), "id", "") == "logger":
        yield from node.args[:1]
    elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Field":
        yield from (keyword.value for keyword in node.keywords if keyword.arg == "description")


@cache
def _versions(modules: frozenset[str]) -> dict[str, str]:
    """The installed versions of the distributions that have these modules, and Python's."""
    versions = {"python": platform.python_version()}
    for module in sorted(modules - sys.stdlib_module_names):
        for distribution in _distributions(module):
            versions[distribution] = importlib.metadata.version(distribution)
    return versions


@cache
def _distributions(module: str) -> list[str]:
    """Those that have the module: the one of its name, else those that list it.

    `importlib.metadata.packages_distributions` tells the same, but looks for every file of every distribution: seconds.
    """
    try:
        importlib.metadata.version(module)
    except importlib.metadata.PackageNotFoundError:  # it is installed under another name
        listed = re.compile(rf"^{re.escape(module)}([/.]|$)", re.MULTILINE)
        return sorted({name for name, files in _listed_files() if listed.search(files)})
    return [module]


@cache
def _listed_files() -> list[tuple[str, str]]:
    """Each installed distribution's name, and the modules or files that it says it has, a line each."""
    return [
        (each.metadata["Name"], each.read_text("top_level.txt") or each.read_text("RECORD") or "")
        for each in importlib.metadata.distributions()
    ]


# ---- records -------------------------------------------------------------------------------------------------------

PARTS = ("parameters", "code", "packages", "inputs", "outputs")
KEYS = "keys_read"  # an attribute of a node's function


def reads(**keys: Collection[str]) -> Callable[[Function], Function]:
    """A node's function reads no more than these keys of such a block of parameters: others make nothing stale, and nor
    does a user's own code that they name."""

    def mark(function: Function) -> Function:
        setattr(function, KEYS, keys)
        return function

    return mark


def _part(block: Any, keys: Collection[str] | None) -> Any:
    return block if keys is None else {key: value for key, value in block.items() if key in keys}


class RecordFolders(NamedTuple):
    """Where records lie: beside prepared data, which several environments may share, and beside results."""

    data: Path
    results: Path


class Records:
    """The records of nodes; `parameters` are all that the project has, by task, and `kinds` the models of the blocks
    among them, by full key. Only our own nodes have records, and none of a user's; see `namespaces_in`.
    """

    def __init__(
        self,
        folders: RecordFolders,
        parameters: Mapping[str, Any],
        kinds: Mapping[str, type[BaseModel]],
    ) -> None:
        self.folders, self.parameters, self.kinds = folders, parameters, kinds
        names = names_in(parameters)
        self.tasks, self.data = names["{task}"], names["{data}"]
        self.namespaces = namespaces_in(parameters)

    def ours(self, nodes: Iterable[Node]) -> Pipeline:
        """Those of `nodes` that have records."""
        return Pipeline({node for node in nodes if node.namespace in self.namespaces})

    def describe(self, node: Node, catalog: DataCatalog) -> dict[str, Any]:
        """What would make the node's outputs if it ran now."""
        loaded = [Checkpoint] if any(name.rpartition(".")[2].endswith("checkpoint") for name in node.inputs) else []
        code, packages = code_of(node.func, *loaded, names=self.names(node))
        keys: Mapping[str, Collection[str]] = getattr(node.func, KEYS, {})
        blocks = {name: self._block(name, catalog) for name in node.inputs if _is_parameter(name)}
        parts = {name: _part(block, keys.get(name.rpartition(".")[2])) for name, block in blocks.items()}
        files = {key: value for name, part in parts.items() for key, value in self.files(name, part)}
        return {
            "parameters": parts,
            "code": code,
            "packages": packages,
            "inputs": {name: fingerprint(catalog, name) for name in node.inputs if not _is_parameter(name)} | files,
        }

    def files(self, name: str, block: Any) -> Iterator[tuple[str, str | None]]:
        """What is in the files that a block of parameters names, by full key."""
        full = name.removeprefix("params:")
        for key in getattr(self.kinds.get(full), "reads", ()):
            if isinstance(block, Mapping) and block.get(key):
                yield f"{full}.{key}", contents_within(Path(block[key]).expanduser())

    def _block(self, name: str, catalog: DataCatalog) -> Any:
        """The parameter as nodes get it; of a pipeline that does not run Kedro has it as the user wrote it."""
        value, kind = catalog.load(name), self.kinds.get(name.removeprefix("params:"))
        if name == "parameters":  # of which this one decides nothing
            value = {block: values for block, values in value.items() if block != "tracking"}
        return plain(kind.model_validate(value) if kind and isinstance(value, dict) else value)

    def names(self, node: Node) -> set[str]:
        """The names by which the node's task may import modules: its own, those in its parameters, and in those of the
        data set and the tasks that it is made of."""
        keys: Mapping[str, Collection[str]] = getattr(node.func, KEYS, {})
        names, left = set(), [node.namespace or ""]
        for name in left:  # which grows
            block = self.parameters.get(name, {})
            if isinstance(block, Mapping):
                judges = f"params:{node.namespace}.evaluate" in node.inputs
                block = {
                    key: _part(values, keys.get(key)) for key, values in block.items() if key != "evaluate" or judges
                }
            names |= {name, *strings(block)}
            made_of = strings(block.get("task")) if isinstance(block, Mapping) else ()
            left += [each for each in made_of if each in self.parameters and each not in left]
        return names

    def write(
        self, node: Node, catalog: DataCatalog, description: Mapping[str, Any], circumstances: Mapping[str, Any]
    ) -> None:
        """Record that the node, so described, has made what its outputs hold now: in which run, in how many seconds."""
        outputs = {name: fingerprint(catalog, name) for name in node.outputs}
        record = {"node": node.name, **circumstances, **description, "outputs": outputs}
        with atomic_write(self._path(node)) as temporary:
            temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    def begin(self, node: Node, outputs: Mapping[str, str | None], aside: Mapping[str, Stamp]) -> None:
        """Record that the node is at work on its outputs, of which these are there: halves, until it has ended.

        Those of the run before are put `aside`, by their paths.
        """
        parts: dict[str, Any] = {part: {} for part in PARTS}
        record = {"node": node.name, "begun": True, **parts, "outputs": outputs, "aside": aside}
        with atomic_write(self._path(node)) as temporary:
            temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    def read(self, node: Node) -> dict[str, Any] | None:
        """The node's record; None when there is none that can be read."""
        return _read(self._path(node))

    def _path(self, node: Node) -> Path:
        folder = self.folders.data if node.namespace in self.data else self.folders.results
        return folder / "nodes" / f"{node.name}.json"

    def stale(self, node: Node, catalog: DataCatalog) -> list[str]:
        """Why the node's outputs are not what it would make now; nothing when they are."""
        record = self.read(node)
        if record is None:
            return ["there is no record of what made its outputs"]
        outputs = {name: fingerprint(catalog, name) for name in node.outputs}
        lost = [name for name, value in outputs.items() if value is None]
        changed = [name for name, value in outputs.items() if value and value != record["outputs"].get(name)]
        unknown = [name for name in node.inputs if not _is_parameter(name) and not _can_tell(catalog, name)]
        return [
            *(f"{name}: is not there" for name in lost),
            *(f"{name}: is not what it wrote" for name in changed),
            *(f"{name}: nothing tells whether it has changed" for name in unknown),
            *_changes(record, self.describe(node, catalog)),
        ]

    def stale_before(
        self, pipeline: Pipeline, whole: Pipeline, catalog: DataCatalog
    ) -> Iterator[tuple[str, list[str]]]:
        """Each node of `whole` that `pipeline` builds upon without running it, and that is stale, with the reasons."""
        needed = {node.name for node in pipeline.nodes}
        before = whole.to_nodes(*needed) if needed else Pipeline([])
        for node in before.nodes:
            reasons = self.stale(node, catalog) if node.name not in needed else []
            if reasons:
                yield node.name, reasons


def _read(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    whole = isinstance(record, dict) and all(isinstance(record.get(part), dict) for part in PARTS)
    return record if whole else None


def _is_parameter(name: str) -> bool:
    return name == "parameters" or name.startswith("params:")


def plain(value: Any) -> Any:
    """Parameters as JSON has them, without what does not change the outcome."""
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, BaseModel):
        return value.recipe() if isinstance(value, TrainConfig | DistributedConfig) else value.model_dump(mode="json")
    return json.loads(json.dumps(value, default=str))


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from strings(item)


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """What differs between two descriptions, in words."""
    earlier, later = (
        {name.removeprefix("params:"): value for name, value in side["parameters"].items()} for side in (before, now)
    )
    yield from differences(earlier, later)
    yield from (f"the package {line}" for line in differences(before["packages"], now["packages"]))
    yield from (f"{name}: has changed since" for name in _differing(before["inputs"], now["inputs"]))
    modules = list(_differing(before["code"], now["code"]))
    if modules:
        yield f"the code of {', '.join(modules)} has changed"


def _differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


class RecordsDataset(AbstractDataset[None, RecordFolders]):
    """Where the records lie, for the catalog: what happens around a run writes them.

    Each place is a block with a `filepath`, which Kedro takes from the project's folder on.
    """

    def __init__(
        self, *, data: dict[str, str], results: dict[str, str], metadata: dict[str, Any] | None = None
    ) -> None:
        self.folders = RecordFolders(Path(data["filepath"]), Path(results["filepath"]))
        self.metadata = metadata

    def load(self) -> RecordFolders:
        return self.folders

    def save(self, data: None) -> None:  # noqa: ARG002
        raise DatasetError("records are written by the runs themselves")

    def _exists(self) -> bool:
        return self.folders.results.is_dir()

    def _describe(self) -> dict[str, Any]:
        return {name: str(folder) for name, folder in self.folders._asdict().items()}


@dataclass(frozen=True)
class Lineage:
    """How the files of a task came about: the records of its nodes and of those that they build upon, in that order.

    `runs` are the records of the runs in which these nodes ran, by id, as far as they are there.
    """

    task: str
    nodes: list[dict[str, Any]]
    runs: dict[str, dict[str, Any]]

    @property
    def judges(self) -> list[str]:
        """The tasks whose models `evaluate` asks, beside the task's own."""
        records = [record for record in self.nodes if record["node"] == f"{self.task}.evaluate"]
        taken = [name for record in records for name in record["inputs"]]
        tasks = [name.removesuffix(".checkpoint") for name in taken if name.endswith(".checkpoint")]
        return [task for task in tasks if task != self.task]


class LineageDataset(AbstractDataset[None, Lineage]):
    """The lineage of a task, but for those who read it, for the catalog: what happens around a run writes it."""

    def __init__(
        self, *, task: str, data: dict[str, str], results: dict[str, str], metadata: dict[str, Any] | None = None
    ) -> None:
        self.task, self.metadata = task, metadata
        self.folders = RecordFolders(Path(data["filepath"]), Path(results["filepath"]))

    def load(self) -> Lineage:
        nodes = self._nodes()
        ids = {str(record.get("run")) for record in nodes}
        runs = {run: values for run in sorted(ids) if (values := read_run(self.folders.results / "runs", run))}
        return Lineage(self.task, nodes, runs)

    def _nodes(self) -> list[dict[str, Any]]:
        """From the task's nodes back to those that made their inputs, these first."""
        records = [_read(path) for folder in self.folders for path in sorted((folder / "nodes").glob("*.json"))]
        others = (record for record in records if record and f"{self.task}.lineage" not in record["inputs"])
        known = {str(record["node"]): record for record in others}
        makers = {name: node for node, record in known.items() for name in record["outputs"]}
        found: dict[str, dict[str, Any]] = {}

        def visit(node: str, after: tuple[str, ...] = ()) -> None:
            if node not in found and node not in after:
                for maker in [makers[name] for name in known[node]["inputs"] if name in makers]:
                    visit(maker, (*after, node))
                found[node] = known[node]

        for node in sorted(known, key=lambda node: str(known[node].get("end"))):
            if node.startswith(f"{self.task}."):
                visit(node)
        return list(found.values())

    def fingerprint(self) -> str:
        """Of the parameters and the packages: that it took another time, or was another run, changes nothing."""
        kept = {record["node"]: [record["parameters"], record["packages"]] for record in self._nodes()}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()

    def save(self, data: None) -> None:  # noqa: ARG002
        raise DatasetError("records are written by the runs themselves")

    def _exists(self) -> bool:
        return True

    def _describe(self) -> dict[str, Any]:
        return {"task": self.task, **{name: str(folder) for name, folder in self.folders._asdict().items()}}


def records_of(catalog: DataCatalog) -> Records:
    """The records of the project's nodes."""
    kinds: Any = TypeExtractor(dict(pipelines)).extract_types_from_pipelines()
    return Records(catalog.load("records"), plain(catalog.load("parameters")), kinds)
