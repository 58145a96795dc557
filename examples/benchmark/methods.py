"""The methods that are compared: a library, its settings, and where it is installed."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import libraries


@dataclass(frozen=True)
class Method:
    """A library with settings. `make(seed, threads)` imports it."""

    settings: str
    make: Callable
    package: str | None = None  # to install
    module: str | None = None  # to import
    environment: str | None = None  # its folder in --venvs


def _of(library, where, **methods):
    """Methods of one library: name=(settings in words, settings)."""
    return {
        name.replace("_", "-"): Method(words, partial(library, **settings), *where)
        for name, (words, settings) in methods.items()
    }


METHODS = {
    **_of(
        libraries.Ours, ("skxmc", "skxmc"),
        skxmc=("``XMCClassifier()``, its ``n_jobs`` the threads of all methods", {}),
    ),
    **_of(
        libraries.Popular, (),
        popular=("the most frequent labels for every row", {}),
    ),
    **_of(
        libraries.Omikuji, ("omikuji", "omikuji", "omikuji"),
        omikuji_parabel=("its defaults: 3 balanced binary trees, as Parabel", {}),
        omikuji_bonsai=(
            "3 trees of up to 100 branches and depth 3, not balanced, as Bonsai",
            {"cluster_balanced": False, "cluster_k": 100, "max_depth": 3},
        ),
    ),
    **_of(
        libraries.Pecos, ("libpecos", "pecos", "pecos"),
        pecos_tree=("XR-Linear as its command line has it: 16 branches, beam 10", {}),
        pecos_trees=(
            "XR-Linear as its authors recommend: 3 trees of 32 branches, tfn+man, beam 50",
            {"n_trees": 3, "splits": 32, "negatives": "tfn+man", "beam": 50},
        ),
        pecos_ova=("one-vs-all", {"tree": False}),
    ),
    **_of(
        libraries.NapkinXC, ("napkinxc", "napkinxc", "napkinxc"),
        napkinxc_plt=("its defaults: binary tree, logistic loss, C=10", {"model": "PLT"}),
        napkinxc_br=("one-vs-all, logistic loss, C=10", {"model": "BR"}),
        napkinxc_br_hinge=(
            "one-vs-all, squared hinge, C=1",
            {"model": "BR", "loss": "l2", "liblinear_c": 1},
        ),
    ),
    **_of(
        libraries.LibMultiLabel, ("libmultilabel", "libmultilabel", "libmultilabel"),
        libmultilabel_ova=("one-vs-all, squared hinge", {"train": "train_1vsrest"}),
        libmultilabel_tree=("tree of 100 branches, squared hinge", {"train": "train_tree"}),
    ),
    **_of(
        libraries.ScikitLearn, ("scikit-learn", "sklearn", "skl"),
        sklearn_ovr=("``OneVsRestClassifier(LogisticRegression(C=10))``", {"C": 10}),
        sklearn_mlp=("``MLPClassifier()``", {"network": True}),
    ),
}  # fmt: skip


def find(name, options=None):
    """The method of a name; of ours also with other parameters than the defaults."""
    if options is None:
        return METHODS[name]
    words = ", ".join(f"{key}={value!r}" for key, value in options.items())
    ours = METHODS["skxmc"]
    return replace(ours, settings=f"``XMCClassifier({words})``", make=partial(ours.make, **options))
