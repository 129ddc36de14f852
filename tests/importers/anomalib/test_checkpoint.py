"""Reading a checkpoint: what it holds runs nothing, and what is no checkpoint is said so."""

import builtins
import collections
import os
import pickle
import shutil
import subprocess
import sys
import types

import pytest
import torch

from lineproof.core.errors import BadInputError
from lineproof.importers.anomalib.checkpoint import Inert, read_checkpoint
from lineproof.importers.anomalib.model import convert
from lineproof.importers.anomalib.transform import read_transform

FOREIGN = "a_package_that_writes"


class _Calls:
    """Pickled as a call of a function with these arguments."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.fixture
def foreign(monkeypatch):
    """A class of another package; making one, or setting its state, writes a file."""
    module = types.ModuleType(FOREIGN)
    exec(
        "from pathlib import Path\n"
        "class Writer:\n"
        "    def __init__(self, path): self.path = path; Path(path).write_text('ran')\n"
        "    def __setstate__(self, state): self.__dict__.update(state); Path(self.path).write_text('ran')\n"
        "class Maker(Writer):\n"
        "    def __reduce__(self): return (Maker, (self.path,))\n",
        module.__dict__,
    )
    monkeypatch.setitem(sys.modules, FOREIGN, module)
    return module


def written(contents, write, entry):
    values = contents()
    values["extra"] = entry
    return write(values)


@pytest.mark.parametrize("kind", ["Writer", "Maker"])
def test_a_class_of_another_package_becomes_an_inert_record(kind, contents, write, foreign, tmp_path):
    proof = tmp_path / "ran.txt"
    path = written(contents, write, getattr(foreign, kind)(str(proof)))
    proof.unlink()
    torch.load(path, weights_only=False)
    assert proof.read_text() == "ran"  # Python's own unpickler would have run it.
    proof.unlink()
    record = read_checkpoint(path).entries["extra"]
    assert not proof.exists()
    assert isinstance(record, Inert)
    assert record.name == f"{FOREIGN}.{kind}"
    assert (record.arguments, record.state) == (((), {"path": str(proof)}) if kind == "Writer" else ((str(proof),), {}))


def test_a_package_that_is_not_installed_is_not_looked_for(contents, write, foreign, tmp_path, monkeypatch):
    path = written(contents, write, foreign.Writer(str(tmp_path / "ran.txt")))
    monkeypatch.delitem(sys.modules, FOREIGN)
    assert read_checkpoint(path).entries["extra"].name == f"{FOREIGN}.Writer"
    assert FOREIGN not in sys.modules


def test_anomalib_is_not_imported(contents, write):
    read_checkpoint(write(contents()))
    assert not [name for name in sys.modules if name.partition(".")[0] in ("anomalib", "lightning")]


@pytest.mark.parametrize("function", [os.system, subprocess.getoutput, builtins.eval, builtins.exec, shutil.rmtree])
def test_a_call_hidden_in_the_file_is_not_made(function, contents, write, tmp_path):
    proof = tmp_path / "ran.txt"
    target = tmp_path / "kept"
    target.mkdir()
    argument = {
        builtins.eval: f"open({str(proof)!r}, 'w')",
        builtins.exec: f"open({str(proof)!r}, 'w')",
        shutil.rmtree: str(target),
    }.get(function, f"echo ran > {proof}")
    path = written(contents, write, _Calls(function, argument))
    if function is os.system:
        with pytest.raises(BadInputError, match="cannot be read as a checkpoint"):
            read_checkpoint(path)
    else:
        record = read_checkpoint(path).entries["extra"]
        assert isinstance(record, Inert)
        assert record.arguments == (argument,)
    assert target.is_dir()
    assert not proof.exists()


def test_the_tensors_of_a_hostile_file_are_still_only_tensors(contents, write):
    values = contents()
    values["state_dict"]["model.idx"] = _Calls(builtins.eval, "1")
    with pytest.raises(BadInputError, match=r"no checkpoint of anomalib.*state_dict with tensors"):
        read_checkpoint(write(values))


def test_what_is_no_checkpoint_is_said_so(contents, write, tmp_path):
    whole = write(contents()).read_bytes()
    plain = tmp_path / "pickle.ckpt"
    plain.write_bytes(pickle.dumps({"state_dict": {}}))
    files = {
        "cut.ckpt": whole[: len(whole) // 2],
        "text.ckpt": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "empty.ckpt": b"",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    for path in (plain, *(tmp_path / name for name in files)):
        with pytest.raises(
            BadInputError, match=rf"{path.name} cannot be read as a checkpoint \(.+\)\. Give the \.ckpt"
        ):
            read_checkpoint(path)
    with pytest.raises(BadInputError, match=r"absent\.ckpt is no file\. Give the \.ckpt"):
        read_checkpoint(tmp_path / "absent.ckpt")
    with pytest.raises(BadInputError, match="is no file"):
        read_checkpoint(tmp_path)


def test_a_state_dict_alone_is_no_checkpoint(contents, write):
    path = write(contents()["state_dict"], "weights.pt")
    with pytest.raises(BadInputError, match=r"weights\.pt is no checkpoint of anomalib: its keys are _is_fitted, .*"):
        read_checkpoint(path)
    with pytest.raises(BadInputError, match="it holds a list"):
        read_checkpoint(write([torch.zeros(2)], "list.pt"))


def test_a_lightning_checkpoint_of_another_model_is_named_by_its_tensors(contents, write):
    values = contents()
    values["state_dict"] = {"model.conv.weight": torch.zeros(2), "model.conv.bias": torch.zeros(2)}
    values["hyper_parameters"] = {"learning_rate": 0.1}
    checkpoint = read_checkpoint(write(values))
    with pytest.raises(BadInputError, match=r"none of the models of anomalib that are known.*first are model\.conv"):
        convert(checkpoint, read_transform(checkpoint))


def test_scalars_are_numbers_only_where_they_are_set(contents, write):
    values = contents()
    values["state_dict"]["post_processor.image_min"] = torch.tensor(float("nan"))
    values["state_dict"]["post_processor.pixel_min"] = torch.zeros(2)
    checkpoint = read_checkpoint(write(values))
    assert checkpoint.number("post_processor.image_min") is None
    assert checkpoint.number("post_processor.absent", "post_processor.image_max") == 25.0
    with pytest.raises(BadInputError, match=r"post_processor\.pixel_min holds 2 values; expected one"):
        checkpoint.number("post_processor.pixel_min")


def test_a_damaged_file_is_found_by_its_checksums(contents, write):
    path = write(contents())
    raw = bytearray(path.read_bytes())
    middle = len(raw) // 2
    raw[middle : middle + 64] = bytes(byte ^ 255 for byte in raw[middle : middle + 64])
    path.write_bytes(raw)
    with pytest.raises(BadInputError, match=r"is damaged: .* does not have its checksum\. Copy it again"):
        read_checkpoint(path)


@pytest.mark.parametrize("name", ["other.weight", "post_processor.temperature"])
def test_a_tensor_beside_the_model_that_is_not_known_is_named(contents, write, name):
    values = contents()
    values["state_dict"][name] = torch.zeros(1)
    with pytest.raises(BadInputError, match=f"holds 1 tensor that no known release of anomalib has: {name}"):
        read_checkpoint(write(values))


def test_lightnings_dictionary_is_one(contents, write, monkeypatch):
    module = types.ModuleType("lightning_stand_in")
    module.AttributeDict = type("AttributeDict", (dict,), {"__module__": module.__name__})
    monkeypatch.setitem(sys.modules, module.__name__, module)
    path = written(contents, write, module.AttributeDict(a=[1], b="two"))
    assert read_checkpoint(path).entries["extra"] == {"a": [1], "b": "two"}


def test_a_dictionary_of_another_kind_says_what_could_not_be_read(contents, write):
    path = written(contents, write, collections.defaultdict(list, a=[1]))
    with pytest.raises(
        BadInputError, match=r"cannot be read as a checkpoint \(Can only SETITEM for dict, .*defaultdict"
    ):
        read_checkpoint(path)
