"""Type hints: public functions have them, they reach users, and they tell right from wrong."""

import importlib
import importlib.util
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import skxmc

ROOT = Path(skxmc.__file__).parent
MODULES = sorted(
    {"skxmc", *(module.name for module in pkgutil.iter_modules(skxmc.__path__, "skxmc."))}
)
MODULES = [name for name in MODULES if "._" not in name]


def functions_of(module_name):
    """Every public function and method of a module, by its name, and constructors."""
    module = importlib.import_module(module_name)
    for name in module.__all__:
        thing = getattr(module, name)
        if inspect.isfunction(thing):
            yield name, thing
        elif inspect.isclass(thing):
            for attribute, member in vars(thing).items():
                if attribute == "__init__" or not attribute.startswith("_"):
                    for wrapper in ("__func__", "fget", "fn"):  # the last is available_if's
                        member = getattr(member, wrapper, member)
                    if inspect.isfunction(member):
                        yield f"{name}.{attribute}", member


def without_hints(function):
    """The parameters of a function that have no hint, and "return"."""
    signature = inspect.signature(function)
    found = [
        name
        for name, parameter in signature.parameters.items()
        if name not in ("self", "cls") and parameter.annotation is parameter.empty
    ]
    if function.__name__ != "__init__" and signature.return_annotation is signature.empty:
        found.append("return")
    return found


def test_the_walk_sees_functions_methods_and_what_they_lack():
    """Else the test below would pass on anything."""
    assert "precision_at_k" in dict(functions_of("skxmc.metrics"))
    found = dict(functions_of("skxmc.displays"))
    assert {"TrainingDisplay.__init__", "TrainingDisplay.from_estimator"} <= set(found)
    assert "OrderedWeightedLoss.max_positives" in dict(functions_of("skxmc.losses"))
    assert "XMCClassifier.partial_fit" in dict(functions_of("skxmc"))

    def half(a: int, b):
        return a, b

    assert without_hints(half) == ["b", "return"]


@pytest.mark.parametrize("module", MODULES)
def test_every_public_function_has_hints(module):
    lacking = {name: without_hints(function) for name, function in functions_of(module)}
    assert {name: missing for name, missing in lacking.items() if missing} == {}


def test_the_marker_that_makes_type_checkers_look_at_the_hints_is_there():
    assert (ROOT / "py.typed").read_text() == ""


# What a user may write; a line is wrong where it says so.
USER_CODE = """\
import matplotlib.pyplot as plt
import numpy as np
import scipy.sparse as sp
from sklearn.model_selection import GridSearchCV

from skxmc import XMCClassifier
from skxmc.displays import SamplerComparisonDisplay, TrainingDisplay
from skxmc.inspection import nearest_labels
from skxmc.losses import Loss, OrderedWeightedLoss, make_loss
from skxmc.metrics import precision_at_k, propensities, psp_at_k, ranking_scorers
from skxmc.model_selection import MultilabelStratifiedKFold, cross_validate
from skxmc.persistence import load_model, save_model
from skxmc.presets import quick

X = sp.random_array((100, 30), density=0.1, format="csr")
Y = sp.csr_array(np.eye(100, 10, dtype=int))
clf = XMCClassifier(loss=OrderedWeightedLoss(theta=[1.0, 0.5], k=3), n_jobs=1).fit(X, Y)
labels, scores = clf.predict_topk(X, k=3)
p = propensities(Y)
best: float = precision_at_k(Y, labels, k=1) + psp_at_k(Y, clf.decision_function(X), propensities=p)
low = [precision_at_k([[1, 0]], [[0.3, 0.1]], k=k) for k in (1, 2)]
cv = MultilabelStratifiedKFold(3, random_state=0)
for train, test in cv.split(X, Y):
    sizes: tuple[int, int] = len(train), len(test)
results = cross_validate(quick(n_jobs=1), X, Y, scoring=ranking_scorers(k=range(1, 4)), cv=cv)
search = GridSearchCV(clf, {"loss": ["bce", make_loss("owl")]}, cv=cv).fit(X, Y)
_, ax = plt.subplots()
SamplerComparisonDisplay.from_cv_results(search, ax=ax).plot(errorbar_kw={"capsize": 0})
TrainingDisplay.from_estimator(clf, x="seconds", panels=["loss"]).figure_.savefig("fit.png")
save_model(clf, "tags.safetensors", dtype="float16")
neighbours, cosines = nearest_labels(load_model("tags.safetensors"), [3, 4])
loss: Loss = OrderedWeightedLoss("pairwise", "logistic")
precision_at_k(Y, labels, k="three")  # wrong
save_model(clf, "tags.safetensors", dtype="float8")  # wrong
name: str = psp_at_k(Y, labels, propensities=p)  # wrong
"""


def test_code_of_users_is_checked_and_their_mistakes_found(tmp_path):
    """In a folder of its own, so that the package is an installed one and not under test."""
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("needs mypy: pip install mypy")
    (tmp_path / "use.py").write_text(USER_CODE)
    (tmp_path / "mypy.ini").write_text(
        "[mypy]\ncheck_untyped_defs = True\nignore_missing_imports = True\n"
        "[mypy-matplotlib.*,torch.*]\nfollow_imports = skip\nfollow_imports_for_stubs = True\n"
    )
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "use.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    wrong = {i for i, line in enumerate(USER_CODE.splitlines(), 1) if line.endswith("# wrong")}
    found = {int(line.split(":")[1]) for line in run.stdout.splitlines() if ": error:" in line}
    assert found == wrong, run.stdout + run.stderr
