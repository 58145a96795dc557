"""Train Annif's omikuji backend and skxmc on the same records, and compare them by Annif's metrics.

python compare.py                   synthetic records
python compare.py --data FOLDER     {train,test}_texts.txt, a record a line (.gz or .xz too);
                                    Y_{train,test}.npz, scipy's sparse matrices, records x subjects;
                                    label_names.txt, a subject a line

The vocabulary, the corpora and projects.cfg remain in the output folder, in Annif's formats.
"""

import argparse
import ast
import gzip
import inspect
import lzma
import re
import time
from pathlib import Path

import annif.analyzer
import annif.backend.omikuji
import numpy as np
import scipy.sparse as sp
import skxmc_backend
from annif.analyzer.analyzer import Analyzer
from annif.corpus import DocumentFileTSV, DocumentList
from annif.eval import EvaluationBatch
from annif.registry import AnnifRegistry
from annif.vocab import VocabFileTSV
from sklearn.feature_extraction.text import TfidfVectorizer

SETTINGS = {
    "omikuji Parabel": "backend=omikuji",
    "omikuji Bonsai": "backend=omikuji\ncluster_balanced=False\ncluster_k=100\nmax_depth=3",
    "skxmc": "backend=skxmc\nrandom_state=0",
    "skxmc 20 epochs": "backend=skxmc\nrandom_state=0\nmax_iter=20",
}
METRICS = {"Precision@1": "P@1", "F1@5": "F1@5", "NDCG": "NDCG", "Recall (doc avg)": "recall"}
URI = "http://example.org/subject/{}"


class Words(Analyzer):
    """Words in lower case, by a regular expression: needs none of NLTK's data files."""

    name = "words"

    def __init__(self, param=None):
        """Do not look for those files."""

    def tokenize_words(self, text, filter=True):
        """Split a text into words; `filter`: those with a letter and of three or more."""
        words = re.findall(r"\w+", text.lower())
        return [word for word in words if not filter or self.is_valid_token(word)]


annif.analyzer.register_analyzer(Words)
Config = skxmc_backend.Config  # ANNIF_CONFIG=compare.Config gives Annif's commands both


# -- records -------------------------------------------------------------------------------------


def read_lines(path):
    """The lines of a text file, of path.gz or of path.xz."""
    for suffix, opener in (("", open), (".gz", gzip.open), (".xz", lzma.open)):
        if (found := Path(f"{path}{suffix}")).exists():
            with opener(found, "rt", encoding="utf-8", newline="\n") as file:
                return [line.rstrip("\n") for line in file]
    raise FileNotFoundError(f"There is no {path}, {path}.gz or {path}.xz.")


def read_records(folder, split, n_rows, rng):
    """A random sample of a split: list of texts and CSR indicator of subjects."""
    texts = read_lines(folder / f"{split}_texts.txt")
    Y = sp.csr_array(sp.load_npz(folder / f"Y_{split}.npz"))
    if len(texts) != Y.shape[0]:
        raise ValueError(f"{split}: {len(texts)} texts, but {Y.shape[0]} rows of subjects.")
    rows = np.sort(rng.permutation(len(texts))[:n_rows])
    return [texts[row] for row in rows], Y[rows]


def make_records(n_rows, n_subjects, rng):
    """Records of one to three subjects: each has five words of its own among common ones."""
    share = 1 / np.arange(3, n_subjects + 3)
    texts, rows = [], []
    for _ in range(n_rows):
        subjects = rng.choice(n_subjects, rng.integers(1, 4), replace=False, p=share / share.sum())
        own = [f"term{s}x{w}" for s in subjects for w in rng.choice(5, 2, replace=False)]
        texts.append(" ".join([*own, *(f"common{w}" for w in rng.zipf(1.3, 10) % 1000)]))
        rows.append(subjects)
    indptr = np.cumsum([0, *map(len, rows)])
    indices = np.concatenate(rows)
    return texts, sp.csr_array((np.ones(len(indices)), indices, indptr), (n_rows, n_subjects))


def get_records(args):
    """Texts and subjects of the two splits, and the names of the subjects."""
    rng = np.random.default_rng(0)
    sizes = {"train": args.train_rows, "test": args.test_rows}
    if args.data is None:
        records = {split: make_records(n, 300, rng) for split, n in sizes.items()}
        return records, [f"subject {i}" for i in range(300)]
    records = {split: read_records(args.data, split, n, rng) for split, n in sizes.items()}
    names = [line.split("\t")[-1] for line in read_lines(args.data / "label_names.txt")]
    return records, names


def write_annif(folder, records, names, analyzer):
    """vocabulary.tsv, train.tsv, test.tsv and projects.cfg, which Annif's own commands take too."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"<{URI.format(i)}>\t{name}" for i, name in enumerate(names)]
    (folder / "vocabulary.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for split, (texts, Y) in records.items():
        lines = []
        for row, text in enumerate(texts):
            subjects = Y.indices[Y.indptr[row] : Y.indptr[row + 1]]
            uris = " ".join(f"<{URI.format(i)}>" for i in subjects)
            lines.append(f"{' '.join(text.split())}\t{uris}")
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    common = f"language=en\nvocab=subjects\nanalyzer={analyzer}\nmin_df=2\nlimit=100"
    projects = [f"[{name.replace(' ', '-')}]\n{common}\n{s}\n" for name, s in SETTINGS.items()]
    (folder / "projects.cfg").write_text("\n".join(projects), encoding="utf-8")


# -- measurements --------------------------------------------------------------------------------


class Clock:
    """CPU seconds of a `with` block, all threads together: other programs do not count."""

    def __enter__(self):
        self._start = time.process_time()
        return self

    def __exit__(self, *error):
        self.seconds = time.process_time() - self._start


def open_project(folder, name):
    """The project as a new process finds it: nothing of it is loaded yet."""
    registry = AnnifRegistry(str(folder / "projects.cfg"), str(folder / "data"), False)
    return registry.get_project(name.replace(" ", "-"))


def open_corpus(folder, split, subjects):
    """A split as Annif reads it."""
    return DocumentFileTSV(str(folder / f"{split}.tsv"), subjects)


def time_tfidf(folder, project):
    """CPU seconds that both backends spend on words: of training, and of suggesting."""
    vectorizer = TfidfVectorizer(
        min_df=2, tokenizer=project.analyzer.tokenize_words, token_pattern=None
    )
    with Clock() as train:
        corpus = open_corpus(folder, "train", project.subjects)
        vectorizer.fit_transform(doc.text for doc in corpus.documents)
    with Clock() as test:
        for batch in open_corpus(folder, "test", project.subjects).doc_batches:
            vectorizer.transform([doc.text for doc in batch])
    return train.seconds, test.seconds


def model_size(project):
    """Megabytes of the model, the vectorizer and training files apart."""
    files = [path for path in Path(project.datadir).rglob("*") if path.is_file()]
    sizes = [f.stat().st_size for f in files if f.name != "vectorizer" and "-train" not in f.name]
    return sum(sizes) / 1e6


def measure(folder, name, jobs):
    """Train, then suggest from what is on disk; the row of a table, and the suggestions."""
    project = open_project(folder, name)
    with Clock() as train:
        project.train(open_corpus(folder, "train", project.subjects), jobs=jobs)
    project = open_project(folder, name)
    corpus = open_corpus(folder, "test", project.subjects)
    documents = list(corpus.documents)
    with Clock() as load:
        project.initialize()
    with Clock() as suggest:
        batches = list(project.suggest_corpus(DocumentList(documents)).batches)
    singles = documents[:200]
    with Clock() as one_by_one:
        for doc in singles:
            project.suggest([doc])
    evaluation = EvaluationBatch(project.subjects)
    best = [batch.filter(limit=10) for batch in batches]
    for batch, docs in zip(best, corpus.doc_batches, strict=True):
        evaluation.evaluate_many(batch, [doc.subject_set for doc in docs])
    scores = evaluation.results(list(METRICS))
    row = [f"{100 * scores[metric]:.1f}" for metric in METRICS]
    row += [f"{clock.seconds:.1f}" for clock in (train, load, suggest)]
    row += [f"{1000 * one_by_one.seconds / len(singles):.1f}", f"{model_size(project):.0f}"]
    return row, [suggestions for batch in best for suggestions in batch]


def count_lines(module):
    """Lines of code: all but blank ones, comments and docstrings."""
    source = inspect.getsource(module)
    lines = source.splitlines()
    strings = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    ]
    for node in strings:
        lines[node.lineno - 1 : node.end_lineno] = [""] * (node.end_lineno - node.lineno + 1)
    return sum(not line.strip().startswith("#") for line in lines if line.strip())


def show(folder, project, suggestions, n_records):
    """Print the suggestions for some records, those that a librarian chose marked."""
    documents = list(open_corpus(folder, "test", project.subjects).documents)
    step = max(1, len(documents) // max(1, n_records))
    for row in range(0, step * n_records, step)[:n_records]:
        given = set(documents[row].subject_set)
        names = {
            i: ("*" if i in given else "") + s.labels["en"] for i, s in project.subjects.active
        }
        print(f"\n{documents[row].text[:150]}")
        print(f"  {'a librarian':16}" + "; ".join(names[i].lstrip("*") for i in given))
        for name, results in suggestions.items():
            found = [f"{names[s.subject_id]} {s.score:.3f}" for s in list(results[row])[:5]]
            print(f"  {name:16}" + "; ".join(found))


def print_table(rows):
    """A Markdown table."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        for row in rows
    ]
    lines.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    for cells in lines:
        print(f"| {' | '.join(cells)} |")


def main(argv=None):
    """Write the files, train and suggest with each project, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of records; else synthetic ones")
    parser.add_argument("--train-rows", type=int, default=5000, help="at most")
    parser.add_argument("--test-rows", type=int, default=1000, help="at most")
    parser.add_argument("--analyzer", default="words", help="Annif's, as in snowball(german)")
    parser.add_argument("--jobs", type=int, default=0, help="threads of training; 0: as Annif")
    parser.add_argument("--show", type=int, default=3, help="records whose suggestions are printed")
    parser.add_argument("--output", type=Path, default=Path("skxmc-results/annif"))
    args = parser.parse_args(argv)
    records, names = get_records(args)
    folder = args.output
    write_annif(folder, records, names, args.analyzer)
    project = open_project(folder, "skxmc")
    vocabulary = VocabFileTSV(str(folder / "vocabulary.tsv"), "en")
    project.vocab.load_vocabulary(vocabulary, force=True)

    tfidf = time_tfidf(folder, project)
    modules = {"omikuji": annif.backend.omikuji, "skxmc": skxmc_backend}
    head = [
        "backend",
        *METRICS.values(),
        "train s",
        "load s",
        "suggest s",
        "ms alone",
        "MB",
        "lines",
    ]
    table, suggestions = [head], {}
    for name in SETTINGS:
        row, suggestions[name] = measure(folder, name, args.jobs)
        table.append([name, *row, str(count_lines(modules[name.split()[0]]))])
    (texts, Y), (tests, _) = records["train"], records["test"]
    print(
        f"{len(texts):,} training records, {len(tests):,} test records, {len(names):,} subjects, "
        f"{np.count_nonzero(Y.sum(axis=0)):,} of them in training\n"
    )
    print_table(table)
    print("\ns, ms: CPU time of all threads. P@1 to recall: %, of ten suggestions or fewer.")
    print(f"TF-IDF alone, part of each: train {tfidf[0]:.1f} s, suggest {tfidf[1]:.1f} s")
    show(folder, project, suggestions, args.show)


if __name__ == "__main__":
    main()
