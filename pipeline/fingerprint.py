"""The hash of a stage's code, on which DVC's stages and the resume points depend.

The code of a stage is every module that its script imports, directly or not. The hash is made from
the modules' syntax trees, so formatting and comments do not change it. Docstrings, the words of a
raised error (unless the module is in `QUOTED`) and the modules in `WITHOUT_RESULT` do not change it
either: none of them can change the outputs of a stage.

The models have fingerprints of their own, one for each cell of params.yaml: an edit of a model, or
a new one, runs only that model's cells again.
"""

import ast
import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeGuard

from vmunet.errors import InputError
from vmunet.files import whole_file

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("vmunet", "pipeline", "stages", "reports")
FOLDER = Path(".fingerprints")
MODELS = "models"  # the folder in it with the fingerprint of each cell's model
# Packages and modules that no output of a stage depends on: the logging to MLflow, the end of a
# stage that fails, the repair of DVC's records and what these import, this module, and the list of
# the models' names and modules.
WITHOUT_RESULT = (
    "pipeline.tracking",
    "pipeline.stage",
    "pipeline.repair",
    "pipeline.install",
    "pipeline.owners",
    "pipeline.passwords",
    "pipeline.fingerprint",
    "vmunet.utf8",
    "vmunet.models.places",
)

# Modules whose errors the stage `check` quotes in its outputs, so that the errors' words count.
QUOTED = ("vmunet.data.images",)

CHANGED = "{} or a module that it imports changed after DVC had looked at it; start again"
MODULE_NAME = re.compile(rf"({'|'.join(PACKAGES)})(\.\w+)+")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
# Fields of a syntax tree that do not change the program, or that only some versions of Python have.
SILENT_FIELDS = {"ctx", "kind", "type_comment", "type_ignores", "type_params"}


def fingerprint(script: Path, root: Path = ROOT) -> str:
    """SHA-256 of the code that a stage's script, or a model's module, runs.

    Args:
        script: its path from `root`, such as stages/train.py.
        root: the repository's root.
    """
    return Fingerprints(root).of(script)


def write_fingerprints(root: Path = ROOT, models: Mapping[str, Path] | None = None) -> None:
    """Write .fingerprints/<stage> for each script in stages/, and models/<cell> for each cell.

    Args:
        root: the repository's root.
        models: the file of each cell's model, from `root`.
    """
    scripts = {stage: Path("stages", f"{stage}.py") for stage in stage_names(root)}
    scripts |= {f"{MODELS}/{cell}": file for cell, file in (models or {}).items()}
    folder, fingerprints = root / FOLDER, Fingerprints(root)
    (folder / MODELS).mkdir(parents=True, exist_ok=True)
    for name, script in scripts.items():
        with whole_file(folder / name) as part:
            part.write_text(f"{script.as_posix()} {fingerprints.of(script)}\n")
    for path in (folder / MODELS).iterdir():
        if f"{MODELS}/{path.name}" not in scripts:
            path.unlink()


def checked_fingerprint(name: str, root: Path = ROOT) -> str:
    """A stage's or a model's fingerprint, compared with the code; '' if it has no file.

    If the file is newer than all the code, a look at the times is enough.

    Args:
        name: a stage, or models/<cell>.
        root: the repository's root.

    Raises:
        InputError: the code has changed since the file was written.
    """
    path = root / FOLDER / name
    if not path.is_file():
        return ""
    sources = (source for package in PACKAGES for source in (root / package).rglob("*.py"))
    text, written = path.read_text(), path.stat().st_mtime_ns
    script, _, sha256 = text.strip().rpartition(" ")
    is_older = any(source.stat().st_mtime_ns >= written for source in sources)
    if is_older and fingerprint(Path(script), root) != sha256:
        raise InputError(CHANGED.format(script))
    return text


def stage_names(root: Path = ROOT) -> list[str]:
    """The names of the stages' scripts, without `code`, which writes the fingerprints.

    DVC does not run `nnunet` and `search_trial`.
    """
    names = sorted(path.stem for path in (root / "stages").glob("*.py"))
    return [name for name in names if name not in ("__init__", "code", "nnunet", "search_trial")]


class Fingerprints:
    """Computes the hashes of scripts; a module that several scripts import is read once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._read: dict[Path, tuple[str, set[Path]]] = {}

    def of(self, script: Path) -> str:
        """The hash of a script and of all modules that it imports."""
        digest = hashlib.sha256()
        for path in self.modules(script):
            if not without_result(path):
                digest.update(f"{path.as_posix()} {self._module(path)[0]}\n".encode())
        return digest.hexdigest()

    def modules(self, script: Path) -> list[Path]:
        """The script and the project's files that it imports, directly or not, sorted.

        The import statements are read, also those inside functions, and no code runs. A package is
        listed with its `__init__.py`. The modules of `WITHOUT_RESULT` are listed, but not the
        modules that only these import.
        """
        modules: set[Path] = set()
        waiting = set(files_of(".".join(script.with_suffix("").parts), self._root))
        while waiting:
            path = waiting.pop()
            modules.add(path)
            if not without_result(path):
                waiting |= self._module(path)[1] - modules
        return sorted(modules)

    def _module(self, path: Path) -> tuple[str, set[Path]]:
        """A module's own hash, and the files that it imports."""
        if path not in self._read:
            reader = Reader(path)
            reader.read(ast.parse((self._root / path).read_bytes()))
            sha256 = hashlib.sha256("".join(reader.text).encode()).hexdigest()
            files = {file for name in reader.imported for file in files_of(name, self._root)}
            self._read[path] = sha256, files
        return self._read[path]


class Reader:
    """Reads a module's syntax tree without the parts that cannot change a result.

    Attributes:
        text: the tree as a list of texts. `ast.dump` is not used, because its text differs between
            versions of Python, and dvc.lock is the same for all of them.
        imported: dotted names of all modules that the module may import while it runs. A string
            that is a module's name counts too, because `import_module` may import the names of a
            table (the backends of the scan). In vmunet/__init__.py strings do not count: there they
            name the objects that a person may import.
    """

    def __init__(self, path: Path) -> None:
        self.text: list[str] = []
        self.imported: set[str] = set()
        self._path = path
        self._is_quoted = module_name(path) in QUOTED
        self._is_front = path == Path("vmunet/__init__.py")

    def read(self, node: object) -> None:
        """Read a node, a list of nodes, or a plain value."""
        if isinstance(node, list):
            self.text.append("[")
            for item in node:
                for one in item.orelse if is_for_types_only(item) else [item]:
                    self.read(one)
            self.text.append("]")
        elif isinstance(node, ast.AST):
            self._import(node)
            self.text.append(f"{type(node).__name__}(")
            for field in node._fields:
                value = getattr(node, field, None)
                if value is None or value == [] or field in SILENT_FIELDS:
                    continue
                if field == "body" and isinstance(node, DOCUMENTED):
                    value = without_docstring(value)
                elif field == "exc" and not self._is_quoted:  # of a raise
                    value = without_words(value)
                elif field == "msg":  # of an assert
                    continue
                self.text.append(f"{field}=")
                self.read(value)
            self.text.append(")")
        else:
            self.text.append(f"{node!r},")

    def _import(self, node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            self.imported.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            folders = self._path.parent.parts
            package = folders[: len(folders) - node.level + 1] if node.level else ()
            module = ".".join((*package, *([node.module] if node.module else [])))
            self.imported.add(module)
            self.imported.update(f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):  # noqa: SIM102
            if MODULE_NAME.fullmatch(node.value) and not self._is_front:
                self.imported.add(node.value)


def without_result(path: Path) -> bool:
    """Whether a module is one of `WITHOUT_RESULT`."""
    name = module_name(path)
    return any(name == other or name.startswith(f"{other}.") for other in WITHOUT_RESULT)


def module_name(path: Path) -> str:
    """The dotted name of a module's path."""
    return ".".join(path.with_suffix("").parts)


def files_of(name: str, root: Path) -> Iterator[Path]:
    """The project's files that run when `name` is imported."""
    parts = name.split(".")
    if parts[0] not in PACKAGES:
        return
    for depth in range(1, len(parts) + 1):
        base = Path(*parts[:depth])
        for path in (base / "__init__.py", base.with_suffix(".py")):
            if (root / path).is_file():
                yield path


def without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    """The statements of a module, class or function after its docstring."""
    first = body[0]
    is_docstring = isinstance(first, ast.Expr) and is_text(first.value)
    return body[1:] if is_docstring else body


def without_words(error: ast.expr) -> list[ast.AST]:
    """The nodes of a raised expression without the texts among its arguments."""
    if not isinstance(error, ast.Call):
        return [error]
    arguments = [*error.args, *error.keywords]
    return [error.func, *(argument for argument in arguments if not is_text(argument))]


def is_text(node: ast.AST) -> bool:
    """Whether an expression is a text or a concatenation of texts."""
    if isinstance(node, ast.BinOp):
        return is_text(node.left) or is_text(node.right)
    is_constant = isinstance(node, ast.Constant) and isinstance(node.value, str)
    return is_constant or isinstance(node, ast.JoinedStr)


def is_for_types_only(node: object) -> TypeGuard[ast.If]:
    """Whether a statement is `if TYPE_CHECKING:`, whose body never runs."""
    return isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"


def python_files(root: Path) -> dict[Path, tuple[int, int]]:
    """The time of change and the size of each Python file in the root's packages."""
    packages = {path.parent for path in root.glob("[!.]*/*.py")}
    files: dict[Path, tuple[int, int]] = {}
    for package in packages:
        for path in package.rglob("*.py"):
            with suppress(FileNotFoundError):  # an editor may be replacing it now
                state = path.stat()
                files[path] = (state.st_mtime_ns, state.st_size)
    return files


def watched_files(root: Path) -> dict[Path, tuple[int, int]]:
    """The time of change and the size of each file that a fingerprint depends on."""
    parameters = root / "params.yaml"  # names the cells and their models
    state = parameters.stat() if parameters.is_file() else None
    return python_files(root) | ({parameters: (state.st_mtime_ns, state.st_size)} if state else {})


def last_change(root: Path) -> int:
    """The time (ns) of the last change of such a file or of a package's folder, by the system."""
    files = watched_files(root)
    folders = {path.parent for path in files if path.suffix == ".py"}
    return max((path.stat().st_ctime_ns for path in (*files, *folders)), default=0)
