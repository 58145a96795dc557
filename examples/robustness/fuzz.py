"""Feed the file readers with broken files, steered by coverage, and see that they refuse them.

    pip install atheris                                               (Linux, Python 3.11 and later)
    export NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR=/tmp/skxmc-checked     compiled loops check indices
    python fuzz.py text [--runs 200000] [--seconds 600]

Readers: text (repository format and svmlight), gz, csr (a folder for open_csr), model (safetensors)
and checkpoint. An input passes if the reader takes it, and what it returns then holds together, or
if it raises the ValueError that the documentation promises. Any other error, an allocation that
takes the process more than 1 GB above its start, or an input of more than 10 seconds ends the
program; libFuzzer then leaves the input as crash-* or timeout-* in this folder.

atheris sees the branches of Python code. It sees none inside of compiled loops: for these the
mutations below know the formats, so that most inputs are nearly right, and the bounds are checked.
"""

import argparse
import copy
import gzip
import io
import json
import random
import re
import resource
import struct
import sys
import tempfile
import warnings
import zipfile
from contextlib import suppress
from pathlib import Path

import atheris

_TRACED = [
    "json.decoder", "numpy.lib._format_impl", "numpy.lib._npyio_impl", "skxmc._checkpoint",
    "skxmc._format", "skxmc.datasets._disk", "skxmc.datasets._files", "skxmc.persistence",
    "zipfile",
]  # fmt: skip
with atheris.instrument_imports(include=_TRACED):
    import numpy as np

    from skxmc import XMCClassifier
    from skxmc._checkpoint import NAME, CheckpointFile
    from skxmc.datasets import _files, load_xmc_file, make_xmc, open_csr, save_csr
    from skxmc.persistence import load_model, save_model

_ROOM = 1 << 30  # bytes that an input may take
_TOKENS = (
    b"", b"0", b"1", b"-1", b"7", b":", b",", b" ", b"\t", b"\r", b"\n", b"#", b"\0", b"1:", b"0:0",
    b"1:nan", b"1:inf", b"2:1e400", b"2:1e-400", b"3:.", b"3:1e", b"3:-.5E+2", b"9" * 25, b"1,1",
    b"2147483648:1", b"9223372036854775807:1", b"9223372036854775806", b"1:" + b"3" * 400, b"qid:3",
    b"3 4 5", b"2 9223372036854775805 1", b"\xef\xbb\xbf", b"\xff",
)  # fmt: skip
_VALUES = (
    None, True, False, 0, 1, -1, 2, 3, 2**31, 2**59, 2**63, 2**64, 10**30, 0.5, -0.0, 1e308, "",
    "0", "\ud800", "<f4", "F32", "|O", "array", [], {}, [0], [1, 1], [2**40, 2**40], [0, 2**62],
    {"array": "a0"}, {"dict": {}}, {"tuple": [1]}, {"float": "nan"}, {"generator": {"dict": {}}},
    {"csr": []}, {"strings": "classes_"}, {"class": "samplers.MIPSSampler", "parameters": {}},
)  # fmt: skip
_SHAPES = ("()", "(0,)", "(1,)", "(3,)", "(-1,)", f"({2**40},)", f"({2**62}, 4)", f"(0, {2**64})",
           "(True,)", "(1.5,)", "[3]")  # fmt: skip
_DTYPES = ("<f4", "<f8", "|u1", "<i8", "|O", "<U999999999", "|S0", "|V8", "", "<M8[s]", ">f4")


# -- mutations that know the formats ---------------------------------------------------------------


def mutate_bytes(raw, rng):
    """Of any file: libFuzzer's own, which also splices in what comparisons have seen."""
    return atheris.Mutate(raw, len(raw) + 64) if raw else rng.choice(_TOKENS)


def mutate_text(text, rng):
    """Tokens and lines that are dropped, doubled, swapped or replaced."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        parts = re.split(rb"([ \n,:])" if rng.random() < 0.5 else rb"(\n)", text)
        i, j = rng.randrange(len(parts)), rng.randrange(len(parts))
        kind = rng.randrange(5)
        if kind == 0:
            parts[i] = rng.choice(_TOKENS)
        elif kind == 1:
            parts.insert(i, parts[j])
        elif kind == 2:
            del parts[i]
        elif kind == 3:
            parts[i], parts[j] = parts[j], parts[i]
        else:
            parts.insert(i, rng.choice(_TOKENS))
        text = b"".join(parts)
    return text


def mutate_gz(raw, rng):
    """The text inside, which leaves the checksum right."""
    try:
        return gzip.compress(mutate_text(gzip.decompress(raw), rng), 1, mtime=0)
    except Exception:  # no gzip any more
        return mutate_bytes(raw, rng) if rng.random() < 0.5 else rng.choice(SEEDS["gz"])


def mutate_tree(tree, rng):
    """One place of a JSON tree replaced, removed or moved."""
    places = []

    def walk(node):
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], (dict, list)):
                walk(node[key])

    tree = copy.deepcopy(tree)
    if isinstance(tree, (dict, list)):
        walk(tree)
    if not places:
        return rng.choice(_VALUES)
    (node, key), (other, there) = rng.choice(places), rng.choice(places)
    kind = rng.randrange(4)
    if kind == 0:
        del node[key]
    elif kind == 1:
        node[key] = copy.deepcopy(other[there])
    elif kind == 2 and type(node[key]) is int:
        node[key] += rng.choice((-1, 1, 2**31, -node[key] - 1))
    else:
        node[key] = copy.deepcopy(rng.choice(_VALUES))
    return tree


def mutate_json(text, rng):
    """JSON text whose tree is mutated, or that is nested too deeply."""
    if rng.random() < 0.01:
        return b"[" * 100_000
    try:
        return json.dumps(mutate_tree(json.loads(text), rng)).encode()
    except (ValueError, RecursionError):
        return mutate_bytes(text, rng)


def split(raw):
    """The parts that `join` put together; cut parts come out short."""
    parts = []
    while len(raw) >= 4:
        end = 4 + struct.unpack("<I", raw[:4])[0]
        parts.append(raw[4:end])
        raw = raw[end:]
    return parts


def join(parts):
    """One input of several files."""
    return b"".join(struct.pack("<I", len(part)) + part for part in parts)


def mutate_csr(raw, rng):
    """The header, or one of the arrays."""
    parts = split(raw)
    if len(parts) < 4:
        return SEEDS["csr"][0]
    i = rng.choice((0, 0, 1, 2, 3))
    parts[i] = mutate_json(parts[i], rng) if i == 0 else mutate_words(parts[i], rng)
    return join(parts)


def mutate_words(raw, rng):
    """Four bytes replaced, or the end cut off or doubled."""
    words = [raw[i : i + 4] for i in range(0, len(raw), 4)] or [b""]
    i = rng.randrange(len(words))
    kind = rng.randrange(6)
    if kind < 4:
        words[i] = struct.pack("<i", rng.choice((-1, 0, 1, 2, 3, 7, 2**31 - 1, -(2**31))))
    elif kind == 4:
        words = words[:i]
    else:
        words += words[i:]
    return b"".join(words)


def mutate_model(raw, rng):
    """The header as a tree, our JSON within it as a tree, or a tensor's bytes."""
    length = int.from_bytes(raw[:8], "little")
    text, rest = raw[8 : 8 + length], raw[8 + length :]
    try:
        header = json.loads(text)
        ours = json.loads(header["__metadata__"]["skxmc"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return mutate_bytes(raw, rng) if rng.random() < 0.5 else rng.choice(SEEDS["model"])
    kind = rng.randrange(8)
    if kind < 4:
        header["__metadata__"]["skxmc"] = json.dumps(mutate_tree(ours, rng))
    elif kind < 6:
        header = mutate_tree(header, rng)
    elif kind == 6:
        rest = mutate_words(rest, rng)
    else:
        return mutate_bytes(raw, rng)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + rest


def mutate_checkpoint(raw, rng):
    """A member of the archive: its values, its array header, its name."""
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        if not members or rng.random() < 0.15:
            return mutate_bytes(raw, rng)
    except Exception:  # no archive any more
        return mutate_bytes(raw, rng) if rng.random() < 0.5 else rng.choice(SEEDS["checkpoint"])
    name = "json.npy" if rng.random() < 0.5 and "json.npy" in members else rng.choice([*members])
    content, kind = members.pop(name), rng.randrange(8)
    start = content.find(b"\n") + 1 or 128  # of the values, behind numpy's header
    if kind < 3:
        change = mutate_json if name == "json.npy" else mutate_words
        values = change(content[start:], rng)
        shape = f"({len(values)},)" if name == "json.npy" else None
        content = replace_header(content[:start], shape) + values
    elif kind < 6:
        head = replace_header(content[:start], rng.choice(_SHAPES), rng.choice((None, *_DTYPES)))
        content = head + content[start:]
    elif kind == 6:
        content = mutate_bytes(content, rng)
    if kind != 7 or rng.random() < 0.5:
        members[name] = content
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as new:
        for each, content in members.items():
            new.writestr(each, content)
    return out.getvalue()


def replace_header(header, shape=None, dtype=None):
    """The header of numpy with another shape or type, as long as it has to be."""
    text = header[10:].decode("latin-1")
    if shape is not None:
        text = re.sub(r"'shape': .*?(, })", rf"'shape': {shape}\1", text)
    if dtype is not None:
        text = re.sub(r"'descr': '[^']*'", f"'descr': '{dtype}'", text)
    text = text.encode("latin-1")
    return header[:8] + struct.pack("<H", len(text)) + text


# -- readers, and what must hold of what they return -----------------------------------------------


def read_text(raw, folder):
    """Blocks of a few bytes to whole files, all ways to count."""
    path = folder / "text"
    path.write_bytes(raw)
    _files._BLOCK_BYTES = (1 << 16, 16, 100)[len(raw) % 3]
    zero_based = (True, True, False, "auto")[len(raw) // 3 % 4]
    X, Y = load_xmc_file(path, dtype=(np.float32, np.float64)[len(raw) % 2], zero_based=zero_based)
    for matrix in (X, Y):
        matrix.check_format(full_check=True)
        for row in np.split(matrix.indices, matrix.indptr[1:-1]):
            assert (row[1:] > row[:-1]).all()
    assert X.shape[0] == Y.shape[0]
    assert np.isfinite(X.data).all()
    assert X.data.all()


def read_csr(raw, folder):
    """A folder of four files; sums over rows read all that is mapped."""
    for name, part in zip(CSR_NAMES, split(raw), strict=False):
        (folder / name).write_bytes(part)
    matrix = open_csr(folder, check=True)
    assert matrix.shape[0] == len(matrix.indptr) - 1
    matrix.check_format(full_check=True)
    assert matrix.nnz == len(matrix.data)


def read_model(raw, folder):
    """Load, and predict for three rows: the compiled loops trust the shapes."""
    path = folder / "model"
    path.write_bytes(raw)
    clf = load_model(path, mmap=len(raw) % 2 == 0)
    if type(clf.top_k) is int and clf.n_features_in_ < 1000:
        # scikit-learn checks parameters when they are used: n_jobs may have become a string.
        with np.errstate(all="ignore"), suppress(TypeError):
            clf.predict_topk(np.ones((3, int(clf.n_features_in_)), np.float32), 2)


def read_checkpoint(raw, folder):
    """All that `fit` reads of it, before it looks whether the shapes are those of the fit."""
    (folder / NAME).write_bytes(raw)
    file = CheckpointFile(folder)
    with file.naming():
        list(file.load()["members"])


READERS = {
    "text": (read_text, mutate_text),
    "gz": (read_text, mutate_gz),
    "csr": (read_csr, mutate_csr),
    "model": (read_model, mutate_model),
    "checkpoint": (read_checkpoint, mutate_checkpoint),
}
CSR_NAMES = ("header.json", *(f"{name}.00000000.bin" for name in ("indptr", "indices", "data")))
SEEDS = {}


def make_seeds(folder):
    """Files as the package writes them."""
    text = [
        b"3 5 4\n0,2 0:0.5 3:1\n1 2:0.25\n 4:1e-3\n",
        b"0,2 1:0.5 3:1 # remark\n\n1 2:0.25 4:1.5e2\r\n3\n 2:1\n",
        b"\xef\xbb\xbf2 3 2\n0 0:1\n\n",
    ]
    SEEDS["text"], SEEDS["gz"] = text, [gzip.compress(one, mtime=0) for one in text]
    X, Y = make_xmc(40, 30, 6, random_state=0)
    save_csr(folder / "X", X[:5])
    files = {file.name.partition(".")[0]: file for file in (folder / "X").iterdir()}
    header = json.loads(files["header"].read_text())
    for name in ("indptr", "indices", "data"):
        header["arrays"][name]["file"] = f"{name}.00000000.bin"
    arrays = [files[name].read_bytes() for name in ("indptr", "indices", "data")]
    SEEDS["csr"] = [join([json.dumps(header).encode(), *arrays])]
    fast = {"hidden_layer_sizes": (3,), "n_jobs": 1, "random_state": 0}
    SEEDS["model"], SEEDS["checkpoint"] = [], []
    for sampler, y in (("uniform", Y), ("mips+uniform", np.array(list("abcd") * 10))):
        path = folder / sampler
        clf = XMCClassifier(sampler, max_iter=2, checkpoint=path, **fast)
        written, CheckpointFile.remove = CheckpointFile.remove, lambda self: None
        save_model(clf.fit(X, y), folder / "model")
        CheckpointFile.remove = written
        SEEDS["model"].append((folder / "model").read_bytes())
        SEEDS["checkpoint"].append((path / NAME).read_bytes())


def main():
    """Fuzz one reader."""
    parser = argparse.ArgumentParser()
    parser.add_argument("reader", choices=READERS)
    parser.add_argument("--runs", type=int, default=200_000)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("files", nargs="*", type=Path, help="run these alone, such as crash-*")
    options = parser.parse_args()
    read, mutate = READERS[options.reader]
    seen = {"inputs": 0, "taken": 0}
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as name:
        folder = Path(name)
        make_seeds(folder)
        corpus = folder / "corpus"
        corpus.mkdir()
        for i, seed in enumerate(SEEDS[options.reader]):
            (corpus / str(i)).write_bytes(seed)
        files = folder / "files"
        files.mkdir()

        def one(raw):
            seen["inputs"] += 1
            for file in files.iterdir():
                file.unlink()
            try:
                read(raw, files)
            except ValueError as error:
                # Subclasses, but for scikit-learn's, are messages of the libraries below.
                if type(error) is not ValueError and "Invalid" not in type(error).__name__:
                    raise RuntimeError("an error that the reader did not word") from error
            else:
                seen["taken"] += 1
            if seen["inputs"] % 20_000 == 0:
                print(f"{options.reader}: {seen}", flush=True)

        for seed in SEEDS[options.reader]:
            one(seed)
        assert seen["taken"], "the seeds are wrong"
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + _ROOM
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        warnings.simplefilter("ignore")
        if options.files:
            for file in options.files:
                one(file.read_bytes())
            return
        arguments = [
            sys.argv[0], f"-atheris_runs={options.runs}", f"-max_total_time={options.seconds}",
            f"-seed={options.seed}", "-timeout=10", "-max_len=200000", "-rss_limit_mb=4096",
            "-print_final_stats=1", "-verbosity=1", str(corpus),
        ]  # fmt: skip

        def mutator(raw, max_size, seed):
            rng = random.Random(seed)
            for _ in range(rng.choice((1, 1, 2, 3))):
                raw = mutate(raw, rng) if rng.random() < 0.8 else mutate_bytes(raw, rng)
            return raw[:max_size]

        atheris.Setup(arguments, one, custom_mutator=mutator)
        atheris.Fuzz()  # ends the process


if __name__ == "__main__":
    main()
