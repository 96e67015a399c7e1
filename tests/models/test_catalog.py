import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ledger.errors import Invalid, Reason
from models.catalog import (
    available_memory,
    memory_need,
    open_model,
    shipped_directory,
    shipped_names,
    validate_memory,
)
from models.config import TensorConfig, config_bytes, read_config
from models.files import refuse_code_in
from models.types import Kind
from tests.models.model_worker import ROOT, TINY, write_tiny

TENSOR = TensorConfig(name="mlp", parameters=12, dtype="float32", shape=(None, 4))


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "tiny")


def refusal_of(directory: Path) -> str:
    with pytest.raises(Invalid) as refusal:
        open_model(directory)
    assert refusal.value.reason is Reason.BAD_MODEL
    return refusal.value.detail


def test_opens_a_text_model(tiny: Path) -> None:
    model = open_model(tiny)
    assert (model.name, model.kind, model.config) == ("tiny", Kind.TEXT, TINY)
    assert model.parameters == 257 * 32 + 2 * 12 * 32 * 32
    assert model.weight_bytes == 4 * model.parameters


def test_opens_a_tensor_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(config_bytes(TENSOR))
    (tmp_path / "model.pt2").write_bytes(b"a program")
    model = open_model(tmp_path)
    assert (model.name, model.kind, model.parameters) == ("mlp", Kind.TENSOR, 12)
    assert model.config == TENSOR


def test_the_digest_is_of_the_files_that_count(tiny: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny, tmp_path / "elsewhere"))
    (copy / "card.json").write_text("prose")
    assert open_model(copy).digest == open_model(tiny).digest
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config))
    assert open_model(copy).digest != open_model(tiny).digest


def test_each_file_is_needed(tiny: Path) -> None:
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        kept = (tiny / name).read_bytes()
        (tiny / name).unlink()
        assert name in refusal_of(tiny)
        (tiny / name).write_bytes(kept)
    open_model(tiny)


def test_a_directory_in_place_of_a_file_is_refused(tiny: Path) -> None:
    (tiny / "tokenizer.json").unlink()
    (tiny / "tokenizer.json").mkdir()
    refusal_of(tiny)


def test_no_such_directory(tmp_path: Path) -> None:
    assert refusal_of(tmp_path / "nowhere") == f"there is no directory {tmp_path}/nowhere"
    (tmp_path / "empty").mkdir()
    lacking = f"{tmp_path}/empty lacks config.json, which such a model has"
    assert refusal_of(tmp_path / "empty") == lacking


def test_damaged_weights_are_refused(tiny: Path) -> None:
    weights = tiny / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert "model.safetensors" in refusal_of(tiny)


def test_a_tokenizer_of_another_size_is_refused(tiny: Path) -> None:
    merges = {"kind": "byte-bpe", "merges": [[0, 1]]}
    (tiny / "tokenizer.json").write_text(json.dumps(merges))
    assert refusal_of(tiny) == "tokenizer.json has 258 tokens, config.json 257"


def test_weights_of_another_size_are_refused(tiny: Path) -> None:
    """A small file must not make a large model be built."""
    fields = json.loads((tiny / "config.json").read_text()) | {"width": 16_384}
    (tiny / "config.json").write_text(json.dumps(fields))
    assert refusal_of(tiny).startswith("model.safetensors holds 32800 numbers, config.json wants ")


def test_an_overlong_config_is_refused(tiny: Path) -> None:
    (tiny / "config.json").write_bytes(b" " * 65_537)
    assert refusal_of(tiny) == "config.json is over 65536 bytes"


TEXT_FIELDS = json.loads(config_bytes(TINY))
TENSOR_FIELDS = json.loads(config_bytes(TENSOR))


@pytest.mark.parametrize(
    "fields",
    [
        "not an object",
        {},
        {"kind": "other"},
        {"kind": ["tensor"]},
        TEXT_FIELDS | {"architecture": "bert"},
        TEXT_FIELDS | {"name": ""},
        TEXT_FIELDS | {"name": "a\nb"},
        TEXT_FIELDS | {"name": "x" * 129},
        TEXT_FIELDS | {"name": "\ud800"},
        TEXT_FIELDS | {"name": 7},
        TEXT_FIELDS | {"name": "0123abcd"},
        TEXT_FIELDS | {"name": "F" * 64},
        TEXT_FIELDS | {"layers": 0},
        TEXT_FIELDS | {"layers": True},
        TEXT_FIELDS | {"context": 2**40},
        TEXT_FIELDS | {"context": 64.0},
        TEXT_FIELDS | {"heads": 3},
        TEXT_FIELDS | {"heads": 32},
        TENSOR_FIELDS | {"parameters": -1},
        TENSOR_FIELDS | {"input": None},
        TENSOR_FIELDS | {"input": {"dtype": "object", "shape": [1]}},
        TENSOR_FIELDS | {"input": {"dtype": "float32", "shape": []}},
        TENSOR_FIELDS | {"input": {"dtype": "float32", "shape": [0]}},
        TENSOR_FIELDS | {"input": {"dtype": "float32", "shape": [-1]}},
        TENSOR_FIELDS | {"input": {"dtype": "float32", "shape": [1] * 9}},
    ],
)
def test_refuses_a_config(fields: object) -> None:
    with pytest.raises(Invalid) as refusal:
        read_config(json.dumps(fields).encode())
    assert refusal.value.reason is Reason.BAD_MODEL


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[" * 60_000])
def test_refuses_what_is_not_json(data: bytes) -> None:
    with pytest.raises(Invalid) as refusal:
        read_config(data)
    assert refusal.value.reason is Reason.BAD_MODEL


def test_shipped_models_go_by_name() -> None:
    assert "docs-gpt" in shipped_names()
    assert open_model(shipped_directory("docs-gpt")).name == "docs-gpt"
    for name in ("other", "../shipped/docs-gpt", "", "."):
        with pytest.raises(Invalid) as refusal:
            shipped_directory(name)
        assert refusal.value.reason is Reason.BAD_MODEL


def test_memory_grows_with_slots(tiny: Path) -> None:
    model = open_model(tiny)
    each = 2 * 4 * TINY.layers * TINY.context * TINY.width
    assert memory_need(model.shape, 9) - memory_need(model.shape, 8) == each


def test_says_how_much_memory_is_missing(tiny: Path) -> None:
    model = open_model(tiny)
    need = memory_need(model.shape, 8)
    validate_memory(model.shape, 8, need)
    validate_memory(model.shape, 8, None)
    with pytest.raises(Invalid) as refusal:
        validate_memory(model.shape, 8, 100 * 2**20)
    assert refusal.value.reason is Reason.NO_MEMORY
    assert refusal.value.detail == f"tiny needs {need // 2**20} MB, 100 MB are free"


@pytest.fixture
def system(tmp_path: Path) -> tuple[Path, Path]:
    """A meminfo with 2000 kB available, and a control group without files."""
    meminfo, group = tmp_path / "meminfo", tmp_path / "cgroup"
    meminfo.write_text("MemTotal:  9000 kB\nMemAvailable:    2000 kB\n")
    group.mkdir()
    return meminfo, group


def limit(group: Path, most: str) -> None:
    (group / "memory.max").write_text(most + "\n")
    (group / "memory.current").write_text("700000\n")
    (group / "memory.stat").write_text("anon 500000\ninactive_file 200000\n")


def test_the_system_says_what_is_free(system: tuple[Path, Path]) -> None:
    assert available_memory(*system) == 2000 * 1024


def test_a_group_limit_counts_when_it_is_less(system: tuple[Path, Path]) -> None:
    limit(system[1], "1500000")
    assert available_memory(*system) == 1_000_000
    limit(system[1], "9000000")
    assert available_memory(*system) == 2000 * 1024
    limit(system[1], "400000")
    assert available_memory(*system) == 0


def test_a_group_without_a_limit_does_not_count(system: tuple[Path, Path]) -> None:
    limit(system[1], "max")
    assert available_memory(*system) == 2000 * 1024


def test_nothing_known_is_none(tmp_path: Path) -> None:
    assert available_memory(tmp_path / "none", tmp_path) is None


def test_the_daemons_imports_bring_no_torch() -> None:
    code = (
        "import sys, models.types, models.pipe, models.catalog;"
        "sys.exit('torch' in sys.modules or 'safetensors' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("name", ["chat_template.jinja", "config.json", "1_Pooling/config.json"])
def test_a_link_out_of_the_directory_is_refused(tiny: Path, tmp_path: Path, name: str) -> None:
    """Else what it leads to would be copied, and given to peers."""
    secret = tmp_path / "id_ed25519"
    secret.write_text("a key")
    (tiny / name).parent.mkdir(exist_ok=True)
    (tiny / name).unlink(missing_ok=True)
    (tiny / name).symlink_to(secret)
    assert refusal_of(tiny).startswith(f"{name} is a link out of the model's directory")


def test_a_directory_behind_a_link_is_refused(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tiny / "1_Pooling").symlink_to(tmp_path / "other")
    assert refusal_of(tiny).startswith("1_Pooling is a link out of the model's directory")


def test_a_snapshot_of_hugging_faces_cache_is_opened(tiny: Path, tmp_path: Path) -> None:
    """Its files are links to the repository's blobs, and to nothing else."""
    snapshot, blobs = tmp_path / "models--a--b" / "snapshots" / "X", tmp_path / "models--a--b/blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(sorted(tiny.iterdir())):
        path.rename(blobs / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    assert open_model(snapshot).shape.files == (
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    )
    (tmp_path / "key").write_text("a key")
    (blobs / "key").symlink_to(tmp_path / "key")
    (snapshot / "chat_template.jinja").symlink_to("../../blobs/key")
    assert refusal_of(snapshot).startswith("chat_template.jinja is a link")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "x.safetensors", "manifest"])
def test_a_pipe_is_not_opened(tiny: Path, name: str) -> None:
    """Reading one would never end."""
    (tiny / name).unlink(missing_ok=True)
    os.mkfifo(tiny / name)
    assert refusal_of(tiny) == f"{name} is not a file"


@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.PT", "data.pkl", "x.ckpt"])
def test_a_directory_with_a_pickle_is_refused(tiny: Path, name: str) -> None:
    (tiny / name).write_bytes(b"cos\nsystem\n")
    detail = refusal_of(tiny)
    assert detail.startswith(f"{name} may be a pickle, which runs code when it is loaded")


def test_a_config_that_asks_for_code_is_refused(tiny: Path) -> None:
    fields = json.loads((tiny / "config.json").read_text())
    fields["auto_map"] = {"AutoModelForCausalLM": "modeling.Evil"}
    (tiny / "config.json").write_text(json.dumps(fields))
    assert refusal_of(tiny) == (
        "config.json asks for its author's code to be run (auto_map), which yuma never does"
    )


def test_other_json_that_asks_for_code_is_refused(tiny: Path) -> None:
    (tiny / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": "t.T"}}')
    names = ("config.json", "tokenizer_config.json", "tokenizer.json")
    with pytest.raises(Invalid) as refusal:
        refuse_code_in(tiny, names, 1000)
    assert refusal.value.detail.startswith("tokenizer_config.json asks for its author's code")
    (tiny / "tokenizer_config.json").write_text("{]")
    with pytest.raises(Invalid):
        refuse_code_in(tiny, names, 1000)
    (tiny / "tokenizer_config.json").write_text(" " * 1001)
    with pytest.raises(Invalid):
        refuse_code_in(tiny, names, 1000)


def test_only_weights_and_texts_may_travel(tiny: Path, tmp_path: Path) -> None:
    assert open_model(tiny).may_travel
    (tmp_path / "config.json").write_bytes(config_bytes(TENSOR))
    (tmp_path / "model.pt2").write_bytes(b"a program")
    assert not open_model(tmp_path).may_travel
