"""The package as a whole: what an import costs, which module may import which, docstrings."""

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

import skxmc

ROOT = Path(skxmc.__file__).parent
PUBLIC = (
    "skxmc",
    "skxmc.samplers",
    "skxmc.losses",
    "skxmc.metrics",
    "skxmc.datasets",
    "skxmc.displays",
    "skxmc.distributed",
    "skxmc.ensemble",
    "skxmc.inspection",
    "skxmc.model_selection",
    "skxmc.persistence",
    "skxmc.presets",
)

# Who may import whom: only modules of a lower level. A new module must find its place here.
LEVELS = {
    "_lazy": -1,
    "_typing": -1,
    "_callbacks": 0,
    "_interrupt": 0,
    "_mapped": 2,
    "_axes": 0,
    "_format": 0,
    "_kernels": 0,
    "_shortlist_kernels": 1,
    "_progress": 0,
    "_ranking": 0,
    "_ranks": 0,
    "_stratify": 0,
    "_products": 0,
    "_device_memory": 0,
    "_threads": 0,
    "_units": 0,
    "losses": 1,
    "metrics": 0,
    "datasets": 0,
    "model_selection": 1,
    "_centroids": 1,
    "_clusters": 1,
    "_ends": 1,
    "_checkpoint": 1,
    "_sharded_checkpoint": 2,
    "_inputs": 3,
    "_all_labels": 3,
    "_targets": 2,
    "_index": 2,
    "_network": 2,
    "samplers": 3,
    "_neighbors": 3,
    "_prediction": 4,
    "_shortlist": 3,
    "_predictor": 5,
    "_training": 4,
    "displays": 4,
    "_choices": 5,
    "_ensemble": 6,
    "_fitted": 6,
    "_fitting": 7,
    "_shards": 7,
    "_classifier": 8,
    "ensemble": 9,
    "inspection": 9,
    "persistence": 9,
    "presets": 9,
    "_part": 10,
    "distributed": 11,
    "__init__": 10,
}


def run_python(code):
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


# -- importing -------------------------------------------------------------------------------------


def test_import_prints_and_warns_nothing_and_leaves_the_heavy_libraries_for_later():
    heavy = ("torch", "numba", "pynndescent", "faiss", "matplotlib")
    code = f"""if True:
        import sys, skxmc
        skxmc.XMCClassifier()
        print([name for name in {heavy} if name in sys.modules])"""
    run = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "[]"
    assert run.stderr == ""


def test_import_leaves_the_settings_of_torch_and_numpy_alone():
    code = """if True:
        import numpy as np, torch
        def state():
            return (torch.get_num_threads(), torch.get_num_interop_threads(),
                    torch.get_default_dtype(), torch.initial_seed(), torch.is_grad_enabled(),
                    np.random.get_state()[2], str(np.random.get_state()[1]), np.geterr())
        torch.manual_seed(3); np.random.seed(3)
        before = state()
        import skxmc
        print(state() == before)
    """
    assert run_python(code).strip() == "True"


def test_version_is_the_one_that_is_installed():
    assert re.fullmatch(r"\d+\.\d+\.\d+([a-z]+\d+|\.dev\d+)?", skxmc.__version__)
    assert version("skxmc") == skxmc.__version__


# -- layers ----------------------------------------------------------------------------------------


def part_of(module):
    """The name in LEVELS of a module of the package, e.g. of skxmc.samplers._mips."""
    names = module.split(".")
    return names[1] if len(names) > 1 else "__init__"


def imports_of(path):
    """Every module that a file imports, at its top or in a function, by its full name."""
    package = ("skxmc", *path.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else ()
            base = ".".join([*base, *([node.module] if node.module else [])])
            # `from skxmc import samplers` imports the module skxmc.samplers.
            yield from (f"{base}.{alias.name}" if base == "skxmc" else base for alias in node.names)


FILES = sorted(ROOT.rglob("*.py"))
FILE_IDS = [path.relative_to(ROOT).as_posix() for path in FILES]


@pytest.mark.parametrize("path", FILES, ids=FILE_IDS)
def test_modules_import_only_from_lower_levels(path):
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    assert own in LEVELS, f"give {own} a level"
    for name in imports_of(path):
        if name.split(".")[0] == "skxmc" and part_of(name) != own:
            assert LEVELS[part_of(name)] < LEVELS[own], f"{path.name} imports {name}"


def test_the_walk_over_imports_sees_what_is_there():
    """Else the tests beside it would pass on anything."""
    found = set(imports_of(ROOT / "_classifier.py"))
    assert {"skxmc._fitting", "skxmc.samplers", "skxmc.metrics", "skxmc._inputs", "numpy"} <= found
    assert "skxmc._index" in set(imports_of(ROOT / "samplers" / "_look_up.py"))  # in a function
    assert "skxmc.samplers" in set(imports_of(ROOT / "__init__.py"))
    assert "skxmc.metrics._inputs" in set(imports_of(ROOT / "metrics" / "_at_k.py"))  # relative


@pytest.mark.parametrize("part", ["samplers", "losses"])
def test_samplers_and_losses_do_not_know_the_network(part):
    for path in [ROOT / f"{part}.py", *(ROOT / part).rglob("*.py")]:
        if path.exists():
            known = {part_of(name) for name in imports_of(path) if name.startswith("skxmc")}
            assert not known & {"_network", "_training", "_prediction", "_classifier"}


@pytest.mark.parametrize(("part", "more"), [("metrics", set()), ("datasets", {"numba"})])
def test_metrics_and_datasets_need_no_torch_and_nothing_else_of_the_package(part, more):
    allowed = {"numpy", "scipy", "sklearn", *more, *sys.stdlib_module_names}
    files = list((ROOT / part).rglob("*.py"))
    assert len(files) > 1
    for path in files:
        for name in imports_of(path):
            own = name.startswith((f"skxmc.{part}", "skxmc._typing"))  # the latter: types only
            assert name.split(".")[0] in allowed or own, name


def test_the_parts_are_what_the_levels_name():
    assert {path.relative_to(ROOT).parts[0].removesuffix(".py") for path in FILES} == set(LEVELS)


# -- public names and their documentation ----------------------------------------------------------

API = Path(__file__).parent / "public_api.txt"


def public_api():
    """A line for each public name, of functions and classes with their parameters."""
    for module in PUBLIC:
        names = importlib.import_module(module).__all__
        for name in sorted(set(names) - {name.removeprefix("skxmc.") for name in PUBLIC}):
            thing = getattr(importlib.import_module(module), name)
            signature = ""
            if callable(thing):
                found = inspect.signature(thing, eval_str=False)
                plain = [p.replace(annotation=p.empty) for p in found.parameters.values()]
                signature = found.replace(parameters=plain, return_annotation=found.empty)
            yield f"{module}.{name}{signature}"


def test_the_public_api_is_the_one_written_down():
    """Where it was meant to change, `python tests/test_package.py` writes the file anew."""
    assert list(public_api()) == API.read_text(encoding="utf8").splitlines()


def test_public_modules_are_all_that_have_no_underscore():
    found = {
        module.name
        for module in pkgutil.walk_packages(skxmc.__path__, "skxmc.")
        if "._" not in module.name
    }
    assert {"skxmc", *found} == set(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_all_lists_existing_names_in_order_and_once(name):
    module = importlib.import_module(name)
    assert module.__doc__
    assert sorted(set(module.__all__), key=module.__all__.index) == module.__all__
    for item in module.__all__:
        assert getattr(module, item) is not None


def public_things():
    """Every public function, class and method of ours, by its full name."""
    for module_name in PUBLIC:
        module = importlib.import_module(module_name)
        for name in module.__all__:
            thing = getattr(module, name)
            if not callable(thing):
                continue
            yield f"{module_name}.{name}", None, thing
            if inspect.isclass(thing):
                for attribute, member in vars(thing).items():
                    if not attribute.startswith("_") and inspect.isfunction(member):
                        yield f"{module_name}.{name}.{attribute}", thing, member


THINGS = {name: (owner, thing) for name, owner, thing in public_things()}


def parameters_of(thing):
    if inspect.isclass(thing) and "__init__" not in vars(thing):
        return []  # those of its base, documented there
    return [
        name for name in inspect.signature(thing).parameters if name not in ("self", "args", "kwds")
    ]


def overrides(owner, name):
    """Whether a base class of ours has this method too, and so documents its parameters."""
    return any(
        name in vars(base) for base in owner.__mro__[1:] if base.__module__.startswith("skxmc")
    )


@pytest.mark.parametrize("name", THINGS)
def test_every_public_name_has_a_docstring_that_lists_its_parameters(name):
    owner, thing = THINGS[name]
    doc = inspect.cleandoc(vars(thing).get("__doc__") or "") if inspect.isclass(thing) else ""
    doc = doc or inspect.cleandoc(thing.__doc__ or "")
    assert doc, "no docstring"
    first = doc.splitlines()[0]
    assert first.endswith((".", ":"))
    if owner is not None and overrides(owner, thing.__name__):
        return
    parameters = parameters_of(thing)
    if parameters:
        # A dataclass may call them attributes.
        assert re.search(r"^(Parameters\n-{10}|Attributes\n-{10})$", doc, re.MULTILINE)
    for parameter in parameters:
        kind = inspect.signature(thing).parameters[parameter].kind
        line = rf"^(\w+, )*\*{{0,2}}{parameter}(, \w+)* : \S"
        if kind is inspect.Parameter.VAR_KEYWORD:  # numpydoc gives it no type
            line = rf"^\*\*{parameter}( : \S.*)?$"
        assert re.search(line, doc, re.MULTILINE), f"{parameter} is not documented"


def test_the_public_names_are_found():
    assert "skxmc.XMCClassifier.predict_topk" in THINGS
    assert "skxmc.samplers.MIPSSampler" in THINGS
    assert "skxmc.metrics.psp_at_k" in THINGS


@pytest.mark.parametrize("name", ["fit", "predict", "predict_topk", "predict_proba", "score"])
def test_methods_of_the_estimator_say_what_they_return(name):
    assert "Returns\n-------" in inspect.getdoc(getattr(skxmc.XMCClassifier, name))


def test_fitted_attributes_are_documented():
    clf = skxmc.XMCClassifier(hidden_layer_sizes=(2,), max_iter=1, n_jobs=1)
    clf.fit(np.eye(4), np.eye(4, dtype=int))
    doc = inspect.getdoc(skxmc.XMCClassifier)
    attributes = doc[doc.index("Attributes\n---") : doc.index("See Also")]
    for name in vars(clf):
        if name.endswith("_") and not name.startswith("_"):
            assert re.search(rf"^{name} : ", attributes, re.MULTILINE), name


if __name__ == "__main__":
    API.write_text("\n".join(public_api()) + "\n", encoding="utf8")
