"""The Annif backend of examples/annif, in the real Annif where it is installed."""

import importlib
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import joblib
import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what Annif imports
    pytest.importorskip("annif", reason="Annif is not installed: pip install annif")
    from annif.corpus import Document, DocumentList, SubjectSet
    from annif.exception import (
        ConfigurationException,
        NotInitializedException,
        NotSupportedException,
    )
    from annif.registry import AnnifRegistry
    from annif.vocab import VocabFileTSV

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "annif"
SUBJECTS = {"cats": "purr whisker kitten", "dogs": "bark leash puppy", "birds": "feather nest wing"}
SETTINGS = "n_jobs=1\nrandom_state=0\nmax_iter=20\nhidden_layer_sizes=(16,)\nsampler=uniform\n"

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module", autouse=True)
def compare():
    """The example's two modules; importing them registers the backend and an analyzer."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.syspath_prepend(FOLDER)
        importlib.import_module("skxmc_backend")
        pytest.importorskip(
            "omikuji", reason="omikuji is not installed: pip install annif[omikuji]"
        )
        yield importlib.import_module("compare")


@pytest.fixture
def opener(tmp_path):
    """A function that opens a project of three subjects, "fish" unused, as a new process would."""

    def open_project(settings=SETTINGS):
        config = f"[p]\nlanguage=en\nvocab=animals\nanalyzer=words\nbackend=skxmc\n{settings}"
        (tmp_path / "projects.cfg").write_text(config)
        registry = AnnifRegistry(str(tmp_path / "projects.cfg"), str(tmp_path / "data"), False)
        return registry.get_project("p")

    names = ["fish", *SUBJECTS]  # so that the columns of the classifier are not the subjects
    lines = [f"<http://example.org/{name}>\t{name}\n" for name in names]
    (tmp_path / "animals.tsv").write_text("".join(lines))
    vocabulary = VocabFileTSV(str(tmp_path / "animals.tsv"), "en")
    open_project().vocab.load_vocabulary(vocabulary, force=True)
    return open_project


def documents(n=12):
    """Texts of two words of one subject, in turn; and two that no training can use."""
    docs = []
    for row in range(n):
        subject = row % 3
        words = list(SUBJECTS.values())[subject].split()
        del words[row // 3 % 3]
        docs.append(Document(text=" ".join(words), subject_set=SubjectSet([1 + subject])))
    return [*docs, Document(text="purr bark"), Document(text="", subject_set=SubjectSet([0]))]


def model_file(project):
    return Path(project.datadir) / "skxmc-model.joblib"


def test_it_suggests_the_subjects_of_the_words_from_a_batch_and_from_the_file(opener):
    project = opener()
    assert not project.is_trained
    project.train(DocumentList(documents()))
    model, subjects = joblib.load(model_file(project))
    assert subjects.tolist() == [0, 1, 2, 3]
    assert model.n_samples_seen_ == 12
    assert model.get_params()["hidden_layer_sizes"] == (16,)
    assert sorted(os.listdir(project.datadir)) == ["skxmc-model.joblib", "vectorizer"]
    asked = [Document(text=t) for t in ("whisker", "unheard of", "leash bark", "Nest and Wing")]
    for asking in (project, opener()):
        assert asking.is_trained
        batch = asking.suggest(asked)
        results = [[(s.subject_id, s.score) for s in found] for found in batch]
        assert [found[0][0] for found in results if found] == [1, 2, 3]
        assert results[1] == []
        assert all(0 < score <= 1 for found in results for _, score in found)
    alone = [(s.subject_id, s.score) for s in project.suggest(asked[2:3])[0]]
    np.testing.assert_allclose(alone, results[2], rtol=1e-5)
    limited = project.suggest(asked, {"skxmc": {"limit": "1"}})
    assert [len(found) for found in limited] == [1, 0, 1, 1]


def test_documents_of_a_subject_without_words_leave_it_unsuggested(opener):
    project = opener()
    project.train(DocumentList(documents()))
    model, _ = joblib.load(model_file(project))
    assert model.label_counts_.tolist() == [0, 4, 4, 4]
    found = {s.subject_id for s in project.suggest([Document(text="purr nest")])[0]}
    assert found == {1, 2, 3}


def test_fused_scores_are_not_squashed_twice(opener):
    project = opener(SETTINGS + "late_fusion=0.5\n")
    project.train(DocumentList(documents()))
    model, _ = joblib.load(model_file(project))
    X = project.backend.vectorizer.transform(["puppy"])
    best = project.suggest([Document(text="puppy")])[0]
    np.testing.assert_allclose(next(iter(best)).score, model.predict_topk(X, 1)[1][0, 0], rtol=1e-6)


def test_what_it_cannot_do_is_said_and_leaves_the_model_alone(opener):
    project = opener()
    with pytest.raises(NotInitializedException, match="not trained"):
        project.suggest([Document(text="purr")])
    with pytest.raises(NotInitializedException, match="vectorizer file"):
        project.backend.initialize()
    with pytest.raises(NotSupportedException, match="no documents"):
        project.train(DocumentList([]))
    with pytest.raises(NotSupportedException, match="keeps no training data"):
        project.train("cached")
    with pytest.raises(NotSupportedException, match="none of 1 documents"):
        project.train(DocumentList([Document(text="purr")]))
    assert not project.is_trained
    project.train(DocumentList(documents()))
    before = model_file(project).read_bytes()
    for setting, match in (("dropout=2", "'dropout' parameter"), ("sampler=unifrom", "unifrom")):
        with pytest.raises(ConfigurationException, match=match):
            opener(SETTINGS.replace("sampler=uniform\n", "") + setting).train(
                DocumentList(documents())
            )
    assert model_file(project).read_bytes() == before


def test_learning_goes_on_from_the_model_and_leaves_new_subjects_out(opener, caplog):
    settings = SETTINGS + "allow_learn=True\n"
    project = opener(settings)
    project.train(DocumentList(documents()[:12]))
    words = "purr whisker kitten"
    before = project.suggest([Document(text=words)])[0].as_vector()
    more = [Document(text=words, subject_set=SubjectSet([3]))] * 20
    more.append(Document(text="bark nest", subject_set=SubjectSet([0])))
    project.learn(DocumentList(more))
    assert "1 subjects are new" in caplog.text
    after = project.suggest([Document(text=words)])[0].as_vector()
    assert after[3] > before[3]
    assert after[0] == 0
    np.testing.assert_array_equal(
        opener(settings).suggest([Document(text=words)])[0].as_vector(), after
    )
    model, subjects = joblib.load(model_file(project))
    assert subjects.tolist() == [1, 2, 3]
    assert model.n_samples_seen_ == 12 + 20
    saved = model_file(project).read_bytes()
    with pytest.raises(ConfigurationException, match="hidden layers"):
        project.learn(DocumentList(more), {"skxmc": {"hidden_layer_sizes": "(8,)"}})
    assert model_file(project).read_bytes() == saved
    assert project.suggest([Document(text=words)])[0].as_vector().tolist() == after.tolist()


def test_annif_finds_it_by_its_settings_alone(opener, tmp_path):
    """A new process of Annif's command, which imports nothing of ours but by ANNIF_CONFIG."""
    opener(SETTINGS)
    environment = {
        **os.environ,
        "PYTHONPATH": str(FOLDER),
        "ANNIF_CONFIG": "skxmc_backend.Config",
        "ANNIF_PROJECTS": str(tmp_path / "projects.cfg"),
        "ANNIF_DATADIR": str(tmp_path / "data"),
    }
    command = [sys.executable, "-c", "from annif.cli import cli; cli()", "show-project", "p"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^Backend: +skxmc$", done.stdout, re.MULTILINE)


def test_the_comparison_prints_a_row_for_each_project(compare, tmp_path, capsys, monkeypatch):
    settings = {**compare.SETTINGS, "skxmc": "backend=skxmc\n" + SETTINGS}
    del settings["skxmc 20 epochs"]
    monkeypatch.setattr(compare, "SETTINGS", settings)
    options = ["--train-rows", "300", "--test-rows", "40", "--jobs", "1", "--show", "1"]
    compare.main([*options, "--output", str(tmp_path)])
    printed = capsys.readouterr().out
    rows = re.findall(
        r"^\| ((?:omikuji|skxmc)[^|]*?) *\| +([\d.]+) \|(.*)\|$", printed, re.MULTILINE
    )
    assert [name for name, *_ in rows] == list(settings)
    # The most frequent subject of this data is right in 1 of 10 records.
    assert all(20 < float(p1) <= 100 for _, p1, _ in rows)
    assert all(50 < int(rest.split("|")[-1]) < 150 for *_, rest in rows)
    assert (tmp_path / "train.tsv").read_text().count("\n") == 300


def test_records_are_read_from_a_folder(compare, tmp_path):
    import gzip

    import scipy.sparse as sp

    with gzip.open(tmp_path / "train_texts.txt.gz", "wt") as file:
        file.writelines(f"text {i}\n" for i in range(9))
    sp.save_npz(tmp_path / "Y_train.npz", sp.csr_array(np.eye(9)))
    texts, Y = compare.read_records(tmp_path, "train", 4, np.random.default_rng(0))
    assert Y.shape == (4, 9)
    assert texts == [f"text {i}" for i in Y.indices]
    (tmp_path / "train_texts.txt").write_text("one\n")
    with pytest.raises(ValueError, match="1 texts, but 9 rows"):
        compare.read_records(tmp_path, "train", 4, np.random.default_rng(0))
    with pytest.raises(FileNotFoundError, match=r"test_texts\.txt\.xz"):
        compare.read_records(tmp_path, "test", 4, np.random.default_rng(0))
