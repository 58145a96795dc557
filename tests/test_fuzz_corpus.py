"""Files on which examples/robustness/fuzz.py, or the thought behind it, once broke a reader."""

import io
import json
import tracemalloc
import zipfile

import numpy as np
import pytest

from skxmc import XMCClassifier
from skxmc._checkpoint import NAME, CheckpointFile
from skxmc.datasets import make_xmc
from skxmc.persistence import load_model, save_model


def npy(shape, dtype="|u1", content=b"{}"):
    """An array as numpy writes it, of any shape that one likes to claim."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content


def archive(content, compression=zipfile.ZIP_STORED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as new:
        new.writestr("json.npy", content)
    return out.getvalue()


DEEP = b"[" * 100_000
GOOD = archive(npy("(2,)"))
LONG_ARRAY = npy("(1_500_000_000,)")
LONG = archive(LONG_ARRAY)
CHECKPOINTS = {
    "a shape of 4 TB": archive(npy(f"({2**40},)", "<f4")),
    "a shape of 2 ** 66": archive(npy(f"({2**33}, {2**33})")),
    "strings of 4 GB each": archive(npy("(2,)", "<U999999999")),
    "entries of no bytes, 2 ** 62 of them": archive(npy(f"({2**62},)", "|S0")),
    "compressed zeros": archive(npy("(50_000_000,)", content=bytes(50_000_000)), zipfile.ZIP_BZIP2),
    "JSON too deep": archive(npy("(100_000,)", content=DEEP)),
    "an array header that does not end": archive(npy("(2, (")),
    "no array at all": archive(b"{}"),
    "a part before the file": b"PK\x03\x04" + GOOD[GOOD.index(b"PK\x01\x02") :],
    "a part longer than the file": LONG.replace(
        len(LONG_ARRAY).to_bytes(4, "little") * 2, (2**31).to_bytes(4, "little") * 2
    ),
    "encrypted": GOOD.replace(b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01"),
}


@pytest.mark.parametrize("content", CHECKPOINTS.values(), ids=CHECKPOINTS)
def test_a_checkpoint_is_refused_by_name_and_takes_no_memory(content, tmp_path):
    (tmp_path / NAME).write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=f"{NAME} is no checkpoint, or damaged: "):
            CheckpointFile(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model file as (its header, our part of it, the bytes of its tensors)."""
    path = tmp_path_factory.mktemp("model") / "model"
    X, _ = make_xmc(40, 30, 6, random_state=0)
    clf = XMCClassifier("uniform", hidden_layer_sizes=(3,), max_iter=1, n_jobs=1, random_state=0)
    save_model(clf.fit(X, np.array(list("abcd") * 10)), path)
    raw = path.read_bytes()
    end = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:end])
    return header, json.loads(header["__metadata__"]["skxmc"]), raw[end:]


def write(path, header, ours, tensors):
    header = header | {"__metadata__": {"skxmc": json.dumps(ours)}}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + tensors)


def test_a_model_with_a_value_of_no_kind_is_refused(model, tmp_path):
    header, ours, tensors = model
    path = tmp_path / "model"
    write(path, header, ours, tensors)
    load_model(path)  # nothing is wrong with it but what follows
    write(path, header, ours | {"parameters": ours["parameters"] | {"loss": {}}}, tensors)
    with pytest.raises(ValueError, match="is no file of save_model, or damaged"):
        load_model(path)


def test_a_model_of_many_classes_and_one_endless_name_takes_no_memory(model, tmp_path):
    header, ours, tensors = model
    classes = json.dumps(["x" * 1_000_000, *[""] * 100_000]).encode()
    size = len(tensors)
    place = {"dtype": "U8", "shape": [len(classes)], "data_offsets": [size, size + len(classes)]}
    path = tmp_path / "model"
    write(path, header | {"classes_": place}, ours, tensors + classes)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="100001 strings, and one of 1000000 characters"):
            load_model(path)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
