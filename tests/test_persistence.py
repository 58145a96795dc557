"""A model saved and loaded predicts the same bits; what is damaged or foreign is refused."""

import json
import math
import os
import pickle
import subprocess
import sys
import warnings
from contextlib import suppress

import joblib
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skxmc import XMCClassifier, persistence
from skxmc._format import FORMAT
from skxmc.datasets import make_xmc
from skxmc.losses import LOSSES, BinaryCrossEntropy, OrderedWeightedLoss
from skxmc.metrics import precision_at_k
from skxmc.persistence import load_model, save_model
from skxmc.samplers import SAMPLERS, MIPSSampler, Sampler, UniformSampler

safetensors = pytest.importorskip("safetensors")

X, Y = make_xmc(300, 400, 50, random_state=0)


def xmc(sampler="uniform", **parameters):
    defaults = {"hidden_layer_sizes": (16,), "n_estimators": 1, "max_iter": 2, "random_state": 0}
    return XMCClassifier(sampler, n_jobs=1, **{**defaults, **parameters})


@pytest.fixture(scope="module")
def clf():
    return xmc().fit(X, Y)


@pytest.fixture
def saved(clf, tmp_path):
    path = tmp_path / "clf.safetensors"
    save_model(clf, path)
    return path


def arrays_of(value):
    """Every array in a value, in order."""
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from arrays_of(part)


def assert_same(a, b):
    """Equal in type and value, down to arrays in lists and parameters of samplers."""
    assert type(a) is type(b)
    if isinstance(a, np.ndarray):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for left, right in zip(a, b, strict=True):
            assert_same(left, right)
    elif hasattr(a, "get_params"):
        assert_same(list(a.get_params().items()), list(b.get_params().items()))
    else:
        assert a == b or (a != a and b != b)


def assert_same_state(a, b):
    left, right = ({k: v for k, v in vars(c).items() if k != "_kept"} for c in (a, b))
    assert set(left) == set(right)
    for name, value in left.items():
        assert_same(value, right[name])


def assert_predicts_the_same(a, b, rows=X):
    for given_rows in (rows, rows[:1]):
        for left, right in zip(a.predict_topk(given_rows), b.predict_topk(given_rows), strict=True):
            np.testing.assert_array_equal(left, right)
        for method in ("decision_function", "predict_proba", "predict"):
            left, right = (getattr(c, method)(given_rows) for c in (a, b))
            assert type(left) is type(right)
            left, right = (z.toarray() if sp.issparse(z) else z for z in (left, right))
            np.testing.assert_array_equal(left, right)


# -- what comes back -------------------------------------------------------------------------------

SETTINGS = {
    "plain": {},
    "default": {"sampler": "mips+clustered-in-batch+uniform", "n_estimators": 2},
    "layers": {"hidden_layer_sizes": (16, 8, 4), "n_estimators": 2, "learning_rate": (1, 0.5)},
    "residual": {"residual": True, "late_fusion": 0.5, "n_estimators": 2},
    "embeddings": {"sampler": "label-embedding", "late_fusion": "auto", "top_k": 3},
    "arrays": {
        "positive_weight": np.linspace(1, 2, 50),
        "learning_rate": np.array([1.0, 0.5], np.float32),
        "random_state": np.int64(3),
        "tail_bias": np.float32(0.1),
        "loss": OrderedWeightedLoss(theta=np.array([1.0, 0.5])),
    },
    "lists": {"positive_weight": [1.0] * 50, "learning_rate": [1, 0.25], "late_fusion": 1},
    "objects": {
        "sampler": MIPSSampler(3, index="exact") + (UniformSampler(7) + UniformSampler(5)),
        "loss": BinaryCrossEntropy(),
        "early_stopping": True,
    },
}


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("name", SETTINGS)
def test_a_loaded_model_predicts_the_same_bits(name, mmap, tmp_path):
    clf = xmc(**SETTINGS[name]).fit(X, Y)
    path = tmp_path / "clf"
    save_model(clf, path)
    again = load_model(path, mmap=mmap)
    if name == "arrays":  # numpy's numbers come back as Python's
        clf.set_params(random_state=3, tail_bias=float(np.float32(0.1)))
        clf.tail_bias_ = clf.tail_bias
    assert_same_state(again, clf)
    assert all(array.flags.writeable != mmap for array in arrays_of(list(vars(again).values())))
    with warnings.catch_warnings():
        # torch's, of label embeddings in read-only memory.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        assert_predicts_the_same(again, clf)
        assert again.score(X, Y) == clf.score(X, Y)


@pytest.mark.parametrize("part", [*SAMPLERS.values(), *LOSSES.values()])
def test_every_sampler_and_loss_comes_back(part, clf, tmp_path):
    name = "sampler" if issubclass(part, Sampler) else "loss"
    other = pickle.loads(pickle.dumps(clf)).set_params(**{name: part()})
    save_model(other, tmp_path / "clf")
    assert_same(getattr(load_model(tmp_path / "clf"), name), part())


def test_a_loaded_model_is_an_estimator_like_any_other(saved, clf):
    again = load_model(saved)
    assert again.get_params() == clf.get_params()
    assert_predicts_the_same(pickle.loads(pickle.dumps(again)), clf)
    assert not hasattr(clone(again), "classes_")
    refitted = clone(again).fit(X, Y)
    assert_predicts_the_same(refitted, clf)
    assert_predicts_the_same(again.set_params(max_iter=1).fit(X, Y), xmc(max_iter=1).fit(X, Y))
    again = load_model(saved)
    save_model(again, saved)  # over the file that it is mapped from
    assert_predicts_the_same(load_model(saved), clf)
    assert_predicts_the_same(again, clf)


@pytest.mark.parametrize(
    "classes",
    [
        np.array([3, -5, 7]),
        np.array([1, 2, 3], np.uint8),
        np.array(["tea", "Grüße", "日本"]),
        np.array(["a\0b", 'quote"', "\ud800"], object),
        np.array([2.0, -1.0, 1e6]),
        np.array([True, False]),
    ],
    ids=lambda a: f"{a.dtype}-{a[0]!r}".encode("ascii", "replace").decode(),
)
def test_classes_of_any_kind_come_back(classes, tmp_path):
    y = classes[np.arange(60) % len(classes)]
    clf = xmc(max_iter=1).fit(X[:60], y)
    assert clf.classes_.dtype == classes.dtype
    save_model(clf, tmp_path / "clf")
    again = load_model(tmp_path / "clf")
    assert_same_state(again, clf)
    assert_predicts_the_same(again, clf, X[:60])


def test_feature_names_and_y_containers_come_back(tmp_path):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(X[:, :6].toarray(), columns=[f"word {i}" for i in range(6)])
    clf = xmc().fit(frame, Y.toarray())
    save_model(clf, tmp_path / "clf")
    again = load_model(tmp_path / "clf")
    assert_same_state(again, clf)
    assert again.feature_names_in_.dtype == object
    assert isinstance(again.predict(frame), np.ndarray)
    with pytest.raises(ValueError, match="feature names"):
        again.predict(frame.rename(columns={"word 0": "other"}))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
        lambda part: st.lists(part, max_size=3) | st.lists(part, max_size=3).map(tuple),
        max_leaves=8,
    )
)
def test_any_plain_value_comes_back(value):
    tensors = {}
    stored = json.loads(json.dumps(persistence._encode(value, "x", "parameter", tensors)))
    assert not tensors
    assert_same(persistence._decode(stored, None), value)


def test_callbacks_are_left_out(clf, tmp_path):
    other = pickle.loads(pickle.dumps(clf))
    other._skl_callbacks = [object()]  # as scikit-learn 1.9 keeps them
    save_model(other, tmp_path / "clf")
    assert_same_state(load_model(tmp_path / "clf"), clf)


def test_half_precision_halves_the_file_and_keeps_the_ranking(tmp_path):
    X, Y = make_xmc(1500, 3000, 100, noise=0.5, random_state=0)
    clf = xmc(hidden_layer_sizes=(64,), max_iter=6, late_fusion=0.9).fit(X[:1000], Y[:1000])
    save_model(clf, tmp_path / "whole")
    save_model(clf, tmp_path / "half", dtype="float16")
    size, whole = ((tmp_path / name).stat().st_size for name in ("half", "whole"))
    assert size < 0.55 * whole
    for mmap in (True, False):
        half = load_model(tmp_path / "half", mmap=mmap)
        for name in ("feature_weights_", "label_weights_", "label_embeddings_"):
            table, stored = getattr(clf, name), getattr(half, name)
            assert stored.dtype == np.float32
            assert stored.flags.writeable
            np.testing.assert_array_equal(stored, table.astype(np.float16).astype(np.float32))
        np.testing.assert_array_equal(half.label_biases_, clf.label_biases_)
    scores = [precision_at_k(Y[1000:], c.predict_topk(X[1000:], 1)[0], k=1) for c in (clf, half)]
    assert scores[0] > 0.5
    assert abs(scores[0] - scores[1]) <= 0.002  # one row of 500
    clf.label_weights_[3, 2] = 1e5
    with pytest.raises(ValueError, match=r"label_weights_ has weights beyond 65504"):
        save_model(clf, tmp_path / "half", dtype="float16")
    assert load_model(tmp_path / "half").max_iter == 6  # as it was


def test_the_file_is_one_that_the_library_reads(saved, clf):
    from safetensors.numpy import load_file

    tensors = load_file(saved)
    np.testing.assert_array_equal(tensors["label_weights_"], clf.label_weights_)
    np.testing.assert_array_equal(tensors["hidden_biases_.0"], clf.hidden_biases_[0])
    with safetensors.safe_open(saved, framework="numpy") as file:
        stored = json.loads(file.metadata()["skxmc"])
    assert stored["format"] == FORMAT
    assert stored["parameters"]["hidden_layer_sizes"] == {"tuple": [16]}


def test_loading_needs_neither_torch_nor_safetensors_nor_pickle(saved):
    code = f"""if True:
        import sys
        from skxmc import persistence
        for name in ("safetensors", "pickle"):
            sys.modules[name] = None
        persistence.load_model({os.fspath(saved)!r})
        print("torch" in sys.modules)"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "False"


def test_weights_are_views_of_the_file(clf, tmp_path):
    """A table of 1 GB that is all zeros, a hole in the file, takes no memory to load."""
    resource = pytest.importorskip("resource")
    path = tmp_path / "clf"
    save_model(clf, path)
    header, data = split(path)
    n = 2**24
    for name, shape in (("label_weights_", [n, 16]), ("label_biases_", [n]), ("classes_", [n])):
        size = math.prod(shape) * (8 if name == "classes_" else 4)
        header[name] |= {"shape": shape, "data_offsets": [0, size]}
    header["tail_offsets_"] |= {"shape": [n], "data_offsets": [0, 4 * n]}
    write(path, header, data)
    with open(path, "rb+") as file:
        file.truncate(path.stat().st_size + 2**30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    again = load_model(path)
    assert again.label_weights_.shape == (n, 16)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


# -- what is refused -------------------------------------------------------------------------------


class OwnSampler(UniformSampler):
    pass


class OwnLoss(BinaryCrossEntropy):
    pass


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("sampler", OwnSampler(3), r"parameter sampler is a \S*OwnSampler, which a safetensors"),
        ("sampler", MIPSSampler(3) + OwnSampler(3), r"parameter sampler\.second is a \S*OwnSamp"),
        ("loss", OwnLoss(), r"parameter loss is a \S*OwnLoss"),
        ("random_state", np.random.RandomState(0), r"parameter random_state is a numpy\.random"),
        ("positive_weight", np.array([None, 1]), r"positive_weight is an array of shape \(2,\)"),
        ("positive_weight", [1, 2j], r"parameter positive_weight\.1 is a builtins\.complex"),
    ],
)
def test_what_the_file_cannot_hold_is_named_with_a_remedy(name, value, message, clf, tmp_path):
    other = pickle.loads(pickle.dumps(clf)).set_params(**{name: value})
    path = tmp_path / "clf"
    path.write_text("an old file")
    with pytest.raises(TypeError, match=message) as raised:
        save_model(other, path)
    assert "Pickle the estimator, or use skops; or set" in str(raised.value)
    assert [file.name for file in tmp_path.iterdir()] == ["clf"]
    assert path.read_text() == "an old file"
    default = XMCClassifier().get_params()[name]
    save_model(other.set_params(**{name: default}), path)  # the remedy
    assert_predicts_the_same(load_model(path), clf)


def test_what_is_no_fitted_classifier_is_refused(clf, tmp_path):
    class Mine(XMCClassifier):
        pass

    path = tmp_path / "clf"
    pipe = make_pipeline(StandardScaler(with_mean=False), clf)
    for wrong in (pipe, Mine(), XMCClassifier, None):
        with pytest.raises(TypeError, match=r"clf must be an XMCClassifier, got .* pipe\[-1\]"):
            save_model(wrong, path)
    with pytest.raises(NotFittedError):
        save_model(xmc(), path)
    with pytest.raises(ValueError, match="dtype='half' is unknown; pass 'float32' or 'float16'"):
        save_model(clf, path, dtype="half")
    with pytest.raises(FileNotFoundError, match="no_folder does not exist; make it first"):
        save_model(clf, tmp_path / "no_folder" / "clf")
    other = pickle.loads(pickle.dumps(clf))
    other.note = {1, 2}
    with pytest.raises(TypeError, match=r"attribute note is a .*set, .*delete the attribute"):
        save_model(other, path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_a_failed_save_leaves_the_old_file_and_no_other(where, clf, saved, monkeypatch):
    before = saved.read_bytes()

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(f"skxmc.persistence.os.{where}", fail)
    with pytest.raises(OSError, match="no space left"):
        save_model(clf, saved)
    assert saved.read_bytes() == before
    assert [file.name for file in saved.parent.iterdir()] == [saved.name]


def test_a_disk_that_is_full_is_an_error_and_leaves_nothing(saved, tmp_path):
    pytest.importorskip("resource")
    folder = tmp_path / "full"
    folder.mkdir()
    code = f"""if True:
        import resource
        from skxmc.persistence import load_model, save_model
        clf = load_model({os.fspath(saved)!r})
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        try:
            save_model(clf, {os.fspath(folder / "clf")!r})
        except OSError as error:
            print("could not be written" in str(error))"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "True"
    assert not list(folder.iterdir())


def test_a_link_is_written_through_and_keeps_its_mode(clf, saved, tmp_path):
    if sys.platform == "win32":
        pytest.skip("links need rights there")
    link = tmp_path / "link"
    link.symlink_to(saved)
    saved.chmod(0o640)
    save_model(clf, link, dtype="float16")
    assert link.is_symlink()
    assert saved.stat().st_mode & 0o777 == 0o640
    assert load_model(saved).feature_weights_.flags.writeable


def split(path):
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def write(path, header, data):
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # as the library does: arrays are to be aligned
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def edit(path, change):
    """Change the JSON part of a file: `change(header, stored)`."""
    header, data = split(path)
    stored = json.loads(header["__metadata__"]["skxmc"])
    change(header, stored)
    header["__metadata__"]["skxmc"] = json.dumps(stored)
    write(path, header, data)


def test_a_newer_format_is_refused_by_its_number(saved):
    edit(saved, lambda header, stored: stored.update(format=9, version="9.1"))
    with pytest.raises(ValueError, match=r"written by skxmc 9\.1 with format 9; .* Update skxmc\."):
        load_model(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h, s: s["parameters"].update(new=1), r"'new' \(written by skxmc 9\.1, this is"),
        (lambda h, s: s["parameters"]["loss"].update({"class": "os.system"}), "os.system"),
        (lambda h, s: s["parameters"].update(loss={"call": 1}), "kind 'call'"),
        (lambda h, s: s["attributes"].update(predict=1), "predict is no fitted attribute"),
        (lambda h, s: s["attributes"].update(__class__=1), "__class__ is no fitted attribute"),
        (lambda h, s: s["attributes"].pop("_kind"), "_kind"),
        (lambda h, s: s["attributes"].update(_kind="x"), "contradict each other"),
        (lambda h, s: s["attributes"].update(late_fusion_=0.5), "contradict each other"),
        (lambda h, s: s["attributes"].update(n_features_in_=401), "feature_weights_ is float32 of"),
        (lambda h, s: s["attributes"].pop("label_biases_"), "label_biases_"),
        (lambda h, s: s.update(format="1"), "its format is '1'"),
        (lambda h, s: h.pop("classes_"), "classes_"),
        (lambda h, s: h["label_weights_"].update(shape=[2**60, 16]), "is said to fill bytes"),
        (lambda h, s: h["label_weights_"].update(shape=[49, 16]), "is said to fill bytes"),
        (lambda h, s: h["label_weights_"].update(shape=[-50, -16]), r"has shape \[-50, -16\]"),
        (lambda h, s: h["label_weights_"].update(shape=[16, 50]), "not float32 of"),
        (lambda h, s: h["label_weights_"].update(shape=[2**70, 0], data_offsets=[0, 0]), "clf"),
        (lambda h, s: h["label_weights_"].update(data_offsets=[0, 2**62]), "is said to fill"),
        (lambda h, s: h["label_weights_"].update(data_offsets=[-3200, 0]), "has shape"),
        (lambda h, s: h["label_weights_"].update(data_offsets=[0]), "not enough values"),
        (lambda h, s: h["label_biases_"].update(dtype="I32"), "int32 of shape"),
        (lambda h, s: h["label_biases_"].update(dtype="BF16"), "BF16"),
    ],
)
@pytest.mark.parametrize("mmap", [True, False])
def test_a_file_that_contradicts_itself_is_refused(change, message, mmap, clf, tmp_path):
    path = tmp_path / "clf.safetensors"
    save_model(pickle.loads(pickle.dumps(clf)).set_params(loss=BinaryCrossEntropy()), path)
    edit(path, lambda header, stored: (stored.update(version="9.1"), change(header, stored)))
    with pytest.raises(ValueError, match=message) as raised:
        load_model(path, mmap=mmap)
    assert f"{path} is no file of save_model, or damaged" in str(raised.value)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"1234567",
        (100).to_bytes(8, "little"),
        (2**63).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (2).to_bytes(8, "little") + b"\xff\xfe",
        (200_000).to_bytes(8, "little") + b"[" * 200_000,
        pickle.dumps(np.zeros(100)),
        b"PK\x03\x04" + bytes(100),
    ],
)
def test_a_foreign_file_is_refused_by_name(raw, tmp_path):
    path = tmp_path / "foreign"
    path.write_bytes(raw)
    with pytest.raises(ValueError, match="foreign is no file of save_model, or damaged"):
        load_model(path)


def test_tensors_of_another_program_are_refused(tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / "theirs.safetensors"
    save_file({"weight": np.zeros(3)}, path)
    with pytest.raises(ValueError, match=r"theirs\.safetensors is no file of save_model"):
        load_model(path)
    save_file({"weight": np.zeros(3)}, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="KeyError: 'skxmc'"):
        load_model(path)


@pytest.mark.parametrize("mmap", [True, False])
def test_a_file_cut_anywhere_is_refused(saved, mmap):
    raw = saved.read_bytes()
    for length in [*range(0, 40), *range(40, len(raw), 997), len(raw) - 1]:
        saved.write_bytes(raw[:length])
        with pytest.raises(ValueError, match="is no file of save_model"):
            load_model(saved, mmap=mmap)
    with pytest.raises(FileNotFoundError):
        load_model(saved.parent / "none")


@given(st.data())
@settings(max_examples=150)
def test_a_header_with_any_byte_changed_is_refused_or_still_fits(clf, tmp_path_factory, data):
    """Whatever loads has arrays that fit: prediction reads no memory beyond them."""
    path = tmp_path_factory.getbasetemp() / "changed"
    save_model(clf, path)
    raw = bytearray(path.read_bytes())
    length = int.from_bytes(raw[:8], "little")
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, 7 + length))] = data.draw(
            st.sampled_from(b'0123456789",:[]{}x')
        )
    path.write_bytes(raw)
    with suppress(ValueError):  # no other error
        again = load_model(path)
        assert again.feature_weights_.shape == (400, 16)
        assert again.label_weights_.shape == (50, 16)
        assert again.classes_.shape == again.label_biases_.shape == (50,)


def test_without_the_library_the_error_names_the_extra(clf, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ImportError, match=r'pip install "skxmc\[safetensors\]"'):
        save_model(clf, tmp_path / "clf")
    assert not list(tmp_path.iterdir())


# -- the other ways --------------------------------------------------------------------------------


@pytest.mark.parametrize("compress", [0, 3])
def test_pickle_and_joblib(clf, tmp_path, compress):
    assert_predicts_the_same(pickle.loads(pickle.dumps(clf)), clf)
    joblib.dump(clf, tmp_path / "clf.joblib", compress=compress)
    assert_predicts_the_same(joblib.load(tmp_path / "clf.joblib"), clf)


def test_what_joblib_maps_predicts_and_can_be_saved(clf, tmp_path):
    joblib.dump(clf, tmp_path / "clf.joblib")
    mapped = joblib.load(tmp_path / "clf.joblib", mmap_mode="r")
    assert isinstance(mapped.label_weights_, np.memmap)
    assert not mapped.label_weights_.flags.writeable
    assert_predicts_the_same(mapped, clf)
    save_model(mapped, tmp_path / "clf")
    assert_same_state(load_model(tmp_path / "clf"), clf)
