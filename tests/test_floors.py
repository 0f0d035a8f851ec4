"""The layout of the package, checked on syntax trees: floors, imports, forbidden calls."""

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest
from helpers import for_each

import charlm
from charlm.config.optimizers import OPTIMIZERS

PACKAGE = Path(charlm.__file__).parent
PROJECT = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))

FLOORS = {
    "charlm.openmp": -1,  # before all others
    "charlm": 0,  # __init__: names looked up when first used
    "charlm.commands": 0,
    "charlm.errors": 0,
    "charlm.phases": 0,
    "charlm.units": 0,
    "charlm.files": 1,
    "charlm.listing": 2,
    "charlm.products": 2,
    "charlm.config": 1,
    "charlm.text": 3,
    "charlm.ngrams": 4,
    "charlm.backends": 5,
    "charlm.nn": 6,
    "charlm.inference": 7,
    "charlm.tasks": 8,
    "charlm.runs": 8,
    "charlm.training": 9,
    "charlm.benchmark": 10,
    "charlm.inspect": 10,
    "charlm.report": 11,
    "charlm.api": 12,
    "charlm.server": 13,
    "charlm.cli": 14,
    "charlm.__main__": 15,
}
"""The floor of each package and module of the top level."""

ONLY_ON = {
    "rich": (11, 14), "typer": (14,), "tqdm": (12, 14), "torch": (6, 7, 8, 9, 10, 11, 12),
    "starlette": (13,), "uvicorn": (13,), "h11": (13,),
}  # fmt: skip
EXTRAS = {"starlette", "uvicorn", "h11"}
"""Packages of the extra `serve`, which the package `charlm.server` imports."""
HEAVY = ("torch", "numpy", "datasets", "tokenizers")


def name_of(path: Path) -> str:
    parts = ("charlm", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {
    name_of(path): path for path in sorted(PACKAGE.rglob("*.py")) if "_built_in" not in path.parts
}
every_module = for_each(FILES)


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text(encoding="utf-8"))


def home(module: str) -> str:
    """Return the row of FLOORS that a module belongs to."""
    return ".".join(module.split(".")[:2])


def floor(module: str) -> int:
    return FLOORS[home(module)]


def is_typing_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def imports(module: str, *, inside: bool = True, typing: bool = False) -> set[str]:
    """Return imported modules; `inside`: in functions too; `typing`: for types only too."""
    modules: set[str] = set()
    nodes: list[ast.AST] = [tree_of(module)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports by dots in line {node.lineno}"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                modules.add(whole if whole in FILES else str(node.module))
        if is_typing_only(node) and not typing:
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not inside:
            continue
        nodes += ast.iter_child_nodes(node)
    return modules


def packages(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


@every_module
def test_every_module_is_on_a_floor(module: str) -> None:
    assert home(module) in FLOORS
    assert ast.get_docstring(tree_of(module))


@every_module
def test_imports_go_down_never_up(module: str) -> None:
    """To a floor below, or within the package."""
    for imported in imports(module, typing=module != "charlm"):
        if packages({imported}) == {"charlm"}:
            assert imported in FILES, f"{imported} is not a module of charlm"
            same = home(imported) == home(module)
            assert same or floor(imported) < floor(module) or imported == "charlm", imported


def test_imports_have_no_cycle() -> None:
    """Not even inside of functions."""
    graph = {m: {i for i in imports(m) if i in FILES and i != "charlm"} for m in FILES}
    assert list(TopologicalSorter(graph).static_order())


@every_module
def test_torch_rich_typer_and_tqdm_stay_on_their_floors(module: str) -> None:
    used = packages(imports(module, typing=True))
    for package, floors in ONLY_ON.items():
        assert package not in used or floor(module) in floors, f"{module} imports {package}"
    if floor(module) < 2:
        assert used <= set(sys.stdlib_module_names) | {"charlm"}


@every_module
def test_datasets_and_tokenizers_are_imported_in_functions(module: str) -> None:
    """They are slow to import and not always needed."""
    used = packages(imports(module, inside=False))
    assert not used & {"datasets", "tokenizers"}


@pytest.mark.parametrize("module", [m for m in FILES if home(m) == "charlm.cli"])
def test_a_command_imports_heavy_things_when_it_runs(module: str) -> None:
    """So help is shown at once."""
    for imported in imports(module, inside=False):
        lazy = imported == "charlm.api"  # it imports a name when that is first used
        allowed = lazy or imported.startswith("charlm.cli") or FLOORS.get(home(imported), 9) <= 1
        assert allowed or packages({imported}) <= set(sys.stdlib_module_names) | {"typer"}


@cache
def calls(module: str) -> set[str]:
    return {ast.unparse(n.func) for n in ast.walk(tree_of(module)) if isinstance(n, ast.Call)}


@every_module
def test_nothing_prints_but_the_output_of_the_command_line(module: str) -> None:
    assert "print" not in calls(module) or module == "charlm.cli.output"
    if home(module) != "charlm.cli" and module != "charlm.api.training":  # its bar needs a stream
        names = {ast.unparse(n) for n in ast.walk(tree_of(module)) if isinstance(n, ast.Attribute)}
        assert not names & {"sys.stdout", "sys.stderr"}


@every_module
def test_only_the_error_boundary_ends_the_process(module: str) -> None:
    ends = {"sys.exit", "exit", "quit", "os._exit"} & calls(module)
    assert not ends or (module in ("charlm.cli", "charlm.__main__") and ends == {"sys.exit"})
    raised = {ast.unparse(n) for n in ast.walk(tree_of(module)) if isinstance(n, ast.Raise)}
    assert not any("SystemExit" in text for text in raised)


@every_module
def test_no_pickle(module: str) -> None:
    """No file can execute code: no pickle, no torch.load, no eval."""
    barred = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    assert not packages(imports(module, typing=True)) & barred
    forbidden = {"torch.load", "torch.save", "np.load", "numpy.load", "eval", "exec"} & calls(
        module
    )
    assert not forbidden
    assert "allow_pickle" not in ast.unparse(tree_of(module))


def named_imports(module: str) -> set[str]:
    """Return modules that are imported by a name in a string."""
    calls = [n for n in ast.walk(tree_of(module)) if isinstance(n, ast.Call)]
    texts = [n.args[0] for n in calls if ast.unparse(n.func).endswith("import_module")]
    return {str(text.value) for text in texts if isinstance(text, ast.Constant)}


def test_declared_dependencies_are_the_imported_ones() -> None:
    """An extra is imported by name if it is installed; that of the server by its package.

    h11 comes with uvicorn.
    """
    standard = set(sys.stdlib_module_names) | {"charlm", "compression"}
    imported = set().union(*(packages(imports(module)) for module in FILES)) - standard
    optional = set().union(*(packages(named_imports(module)) for module in FILES)) - standard
    optional |= EXTRAS & imported - {"h11"}
    homes = packages_distributions()  # some releases of a package write - for _
    names = {homes[name][0].lower().replace("-", "_") for name in imported - EXTRAS}
    assert names == {name.replace("-", "_") for name in declared("dependencies")}
    assert {name.lower() for name in optional} == declared("optional-dependencies")


def declared(key: str) -> set[str]:
    content = PROJECT["project"][key]
    lines = (
        content if isinstance(content, list) else [line for ls in content.values() for line in ls]
    )
    return {re.split(r"[<>=!~\[ ;]", line)[0].lower() for line in lines}


def public(module: str) -> list[tuple[str, ast.AST]]:
    """Return public functions, classes and methods with their names."""
    definitions: list[tuple[str, ast.AST]] = []
    waiting: list[tuple[str, ast.AST]] = [(module, tree_of(module))]
    while waiting:
        name, node = waiting.pop()
        for child in ast.iter_child_nodes(node):
            kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
            if isinstance(child, kinds) and not child.name.startswith("_"):
                definitions.append((f"{name}.{child.name}", child))
                if isinstance(child, ast.ClassDef):
                    waiting.append((f"{name}.{child.name}", child))
    return definitions


@every_module
def test_public_things_have_docstrings(module: str) -> None:
    """Functions also have the type of their result."""
    for name, node in public(module):
        assert ast.get_docstring(node), f"{name} has no docstring"
        if not isinstance(node, ast.ClassDef):
            assert node.returns is not None, f"{name} does not say what it returns"


RUN = PACKAGE.parent / "tests" / "fixtures" / "format-1"
LIGHT = [
    ("import charlm", 0),
    ("import charlm; charlm.CharlmError; charlm.Tally; dir(charlm)", 0),
    ("from charlm.cli import main; main(['--help'])", 0),
    ("from charlm.cli import main; main(['--version'])", 0),
    ("from charlm.cli import main; main(['train', '--help'])", 0),
    ("from charlm.cli import main; main(['train', '--hiden', '8'])", 2),
    ("from charlm.cli import main; main(['nothing'])", 2),
    (f"from charlm.cli import main; main(['plot', {str(RUN)!r}])", 0),
]


@pytest.mark.parametrize(("code", "status"), LIGHT)
def test_help_and_errors_import_nothing_heavy(code: str, status: int, tmp_path: Path) -> None:
    assert imported_after(code, status, tmp_path) & set(HEAVY) == set()


ON_LOADING = {"numpy", "safetensors"}
FOR_ARGUMENTS = {"annotated_doc", "attr", "rich", "shellingham", "typer"}
"""Rich imports attr if that is installed."""
OF_NEW_TYPER = {
    "annotated_types", "pydantic", "pydantic_core", "typing_extensions", "typing_inspection"
}  # fmt: skip
FOR_TRAINING = ("batches", "conditioned", "corpus", "dataset", "examples", "labelled", "splits")


@pytest.mark.parametrize("verb", [("sample", "--len", "1"), ("score", "x"), ("next", "x")])
def test_a_short_command_imports_what_it_needs(verb: tuple[str, ...], tmp_path: Path) -> None:
    """Each starts in a third of a second; what reads and encodes training texts stays away."""
    arguments = ["-q", *verb, "--run", str(RUN)]
    code = f"from charlm.cli import main; main({arguments})"
    own = imported_after("", 0, tmp_path)  # a distribution of Python may add sitecustomize
    others = imported_after(code, 0, tmp_path) - own - sys.stdlib_module_names
    others = {name for name in others if not name.startswith("_")} - {"charlm", "cython_runtime"}
    too_new = int(version("typer").split(".")[1]) >= 29  # than pyproject.toml allows
    assert others <= ON_LOADING | FOR_ARGUMENTS | (OF_NEW_TYPER if too_new else set())
    modules = set((tmp_path / "modules").read_text(encoding="utf-8").split())
    assert not modules & {f"charlm.text.{name}" for name in FOR_TRAINING}


def test_a_model_is_built_without_the_compiler_of_torch(tmp_path: Path) -> None:
    """It was imported for an embedding on the device "meta": a second of each plan and load."""
    code = """
from charlm.config.model import ModelSettings
from charlm.nn.model import RecurrentLanguageModel, count_parameters
settings = ModelSettings(hidden_size=4, embedding_size=4, num_layers=1, tie_weights=False)
count_parameters(settings, 5, conditions=2)
RecurrentLanguageModel(settings, 5, conditions=2)
assert 'torch._dynamo' not in sys.modules"""
    imported = imported_after(code, 0, tmp_path)
    assert "sympy" not in imported or version("torch").startswith("2.6.")


def test_models_are_trained_without_the_compiler_of_torch(tmp_path: Path) -> None:
    """Torch's own optimisers import it when they are made: half of the processor time of torch."""
    code = f"""
import sys, torch
from charlm.config.training import TrainingSettings
from charlm.training.optim import build_optimizer
for name in {[*OPTIMIZERS]}:
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = build_optimizer([weight], TrainingSettings(optimizer=name, learning_rate=0.1))
    weight.square().sum().backward()
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.zero_grad()
    assert weight.grad is None and (weight < 1.0).all(), name
    assert 'torch._dynamo' not in sys.modules, name
    assert 'sympy' not in sys.modules, name"""
    assert "sympy" not in imported_after(code, 0, tmp_path)


def imported_after(code: str, status: int, folder: Path) -> set[str]:
    """Return top-level modules that are loaded when a piece of Python has ended."""
    report = f"""
import atexit, sys
atexit.register(lambda: open('modules', 'w').write(' '.join(sys.modules)))
{code}
"""
    done = subprocess.run(
        [sys.executable, "-c", report], capture_output=True, text=True, cwd=folder, check=False
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return packages(set((folder / "modules").read_text(encoding="utf-8").split()))
