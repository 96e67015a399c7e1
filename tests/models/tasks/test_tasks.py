"""Tasks: what they are opened with, what they refuse, what they draw."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from ledger.errors import Invalid, Reason
from models.answers import choices_of, passages_of
from models.tasks import OWN, Task, check_parameters, open_task
from models.tasks.corpus import MAX_BYTES
from models.tasks.tensor import FILE
from models.types import (
    MAX_CHOICES,
    MAX_READING_BYTES,
)
from tests.models.tasks.conftest import seed


def refused(name: str, parameters: str, corpus: Path | None = None) -> str:
    with pytest.raises(Invalid) as refusal:
        open_task(name, parameters, corpus)
    assert refusal.value.reason is Reason.BAD_TASK
    return refusal.value.detail


# --- opening


@pytest.mark.parametrize(
    ("name", "parameters", "words"),
    [
        ("chess", "", "no task 'chess' is installed here, only embedding, tensor, text"),
        ("text", "{", "not JSON"),
        ("text", "[" * 1000, "not JSON"),
        ("text", '{"choices":4,"choices":5}', "name one twice"),
        ("text", "[4]", "not a JSON object"),
        ("text", '{"prefix":240' + " " * 1024 + "}", "over 1024 bytes"),
        ("text", '{"choices":17}', "choices is not a whole number from 2 to 16"),
        ("text", '{"choices":true}', "choices is not a whole number"),
        ("text", '{"choices":4.0}', "choices is not a whole number"),
        ("text", '{"prefix":15}', "prefix is not a whole number from 16 to 800"),
        ("text", '{"continuation":201}', "continuation is not a whole number from 4 to 200"),
        ("text", '{"deadline_ms":0}', "deadline_ms is not a whole number"),
        ("text", '{"per_tempo":1}', "per_tempo is not a whole number from 2 to 256"),
        ("text", '{"colour":1}', "it has no parameters 'colour'"),
        ("embedding", '{"prefix":100}', "it has no parameters 'prefix'"),
        ("embedding", '{"passage":1000}', "passage is not a whole number from 16 to 235"),
        ("tensor", '{"output":"words"}', "output is not one of logits, probabilities"),
        ("tensor", '{"output":["logits"]}', "output is not one of logits, probabilities"),
        ("tensor", "", "it needs a folder with labelled.safetensors"),
    ],
)
def test_what_an_owner_cannot_set(name: str, parameters: str, words: str) -> None:
    assert words in refused(name, parameters)


@pytest.mark.parametrize("name", [*OWN, "chess"])
def test_parameters_are_checked_without_a_corpus(name: str) -> None:
    check_parameters(name, "")
    check_parameters(name, '{"per_tempo":12}')
    for parameters in ("{", "[4]", '{"per_tempo":12,"per_tempo":13}', "1" * 1025):
        with pytest.raises(Invalid) as refusal:
            check_parameters(name, parameters)
        assert refusal.value.reason is Reason.BAD_TASK


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("parameters", ['{"per_tempo":1}', '{"colour":4}', '{"deadline_ms":"5"}'])
def test_of_our_tasks_every_parameter_is_checked(name: str, parameters: str) -> None:
    with pytest.raises(Invalid) as refusal:
        check_parameters(name, parameters)
    assert refusal.value.detail in refused(name, parameters)


def test_what_another_task_takes_is_for_it_to_say() -> None:
    check_parameters("chess", '{"colour":"white"}')


def test_what_an_owner_can_set() -> None:
    task = open_task("text", '{"choices":3,"prefix":50,"continuation":20,"per_tempo":12}', None)
    assert (task.per_tempo, task.deadline_ms) == (12, 5000)
    choices = choices_of(task.draw(seed(1)).data)
    assert [len(text) for text in (choices.prefix, *choices.continuations)] == [50, 20, 20, 20]


def test_a_task_of_ones_own_is_an_installed_entry_point(tmp_path: Path, monkeypatch) -> None:
    """Given a package with a task that asks for parity; then a subnet can be about it."""
    (tmp_path / "parity.py").write_text(PARITY)
    described = tmp_path / "parity-1.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: parity\nVersion: 1\n")
    points = (
        "[yuma.tasks]\nparity=parity:open_parity\nnothing=parity:nothing\ntext=parity:nothing\n"
    )
    (described / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(tmp_path)
    task = open_task("parity", '{"rounds":3}', None)
    assert (task.per_tempo, task.draw(b"\x07").truth) == (3, 1)
    assert "cannot be opened: 'rounds'" in refused("parity", "")
    assert "is no task" in refused("nothing", "")
    assert open_task("text", "", None).deadline_ms == 5000
    assert "only embedding, nothing, parity, tensor, text" in refused("chess", "")


PARITY = """
from models.tasks import Challenge
from models.types import Kind


class Parity:
    deadline_ms = 1000

    def __init__(self, rounds):
        self.per_tempo = rounds

    def draw(self, seed):
        return Challenge(Kind.TEXT, seed, (), seed[0] % 2)

    def score(self, challenge, tensor, output):
        return float(output == b"%d" % challenge.truth)


def open_parity(parameters, corpus):
    return Parity(parameters["rounds"])


def nothing(parameters, corpus):
    return None
"""


# --- a corpus


def folder_of(tmp_path: Path, **texts: str | bytes) -> Path:
    for name, text in texts.items():
        path = tmp_path / name.replace("_", ".")
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return tmp_path


def words(count: int, start: int = 0) -> str:
    return " ".join(f"word{number}" for number in range(start, start + count))


def test_a_corpus_is_the_text_files_of_a_folder(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, a_txt=words(900), b_md=words(900, 5000), c_bin=b"\xff" * 9000)
    task = open_task("text", "", folder)
    parts = [
        part
        for number in range(40)
        for part in choices_of(task.draw(seed(number)).data).continuations
    ]
    assert all(part in words(900) or part in words(900, 5000) for part in parts)
    assert {part in words(900) for part in parts} == {True, False}
    (tmp_path / "more").mkdir()
    (tmp_path / "a.txt").rename(tmp_path / "more" / "a.txt")
    (tmp_path / "b.md").rename(tmp_path / "z.md")
    assert open_task("text", "", folder).draw(seed(1)) == task.draw(seed(1))


def test_a_corpus_that_cannot_be_asked(tmp_path: Path) -> None:
    assert refused("text", "", tmp_path / "none") == f"there is no folder {tmp_path / 'none'}"
    assert "has no files .txt, .md, .rst, .py" in refused("text", "", tmp_path)
    folder_of(tmp_path, a_txt=words(20))
    assert "is too small: 4800 characters are due, in texts of over 300" in refused(
        "text", "", tmp_path
    )
    folder_of(tmp_path, a_txt="the same again. " * 5000)
    assert "repeats itself" in refused("text", "", tmp_path)
    folder_of(tmp_path, a_txt=words(5000), b_txt=b"\x7fELF\xff\xfe" * 100)
    assert refused("embedding", "", tmp_path) == f"{tmp_path / 'b.txt'} is not UTF-8 text"


def test_a_corpus_over_all_bounds_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.txt").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    assert "holds over" in refused("text", "", tmp_path)


# --- drawing


@pytest.mark.parametrize("name", OWN)
def test_a_seed_draws_one_challenge(tasks: dict[str, Task], labelled: Path, name: str) -> None:
    drawn = [tasks[name].draw(seed(number)) for number in range(30)]
    again = open_task(name, "", labelled if name == "tensor" else None)
    assert [again.draw(seed(number)) for number in range(30)] == drawn
    assert len({challenge.data for challenge in drawn}) > 20


@pytest.mark.parametrize("name", ["text", "embedding"])
def test_the_order_does_not_tell_the_truth(tasks: dict[str, Task], name: str) -> None:
    """The truth stands in each of four places a quarter of the time (chi-squared, 1 in 1000)."""
    places = Counter(tasks[name].draw(seed(number)).truth for number in range(2000))
    assert sum((places[place] - 500) ** 2 / 500 for place in range(4)) < 16.3


def test_nothing_but_what_it_says_tells_a_right_passage(tasks: dict[str, Task]) -> None:
    """Right and wrong ones begin at a word, and are as long; all differ."""
    begins: dict[bool, list[bool]] = {True: [], False: []}
    for number in range(300):
        challenge = tasks["text"].draw(seed(number))
        parts = choices_of(challenge.data).continuations
        assert {len(part) for part in parts} == {60}
        assert len(set(parts)) == 4
        for place, part in enumerate(parts):
            begins[place == challenge.truth].append(part[0].isspace() and not part[1].isspace())
    assert all(sum(marks) > 0.95 * len(marks) for marks in begins.values())


def test_the_truth_is_what_stands_there(tmp_path: Path) -> None:
    text = words(3000)
    for name in ("text", "embedding"):
        task = open_task(name, "", folder_of(tmp_path, a_txt=text))
        for number in range(50):
            challenge = task.draw(seed(number))
            if name == "text":
                before, *parts = (asked := choices_of(challenge.data)).prefix, *asked.continuations
            else:
                before, *parts = passages_of(challenge.data).texts
            follows = [before + part in text for part in parts]
            assert follows == [place == challenge.truth for place in range(4)]


def test_the_widest_challenge_fits_in_a_query(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    wide = "".join(chr(0x10000 + int(number)) for number in rng.integers(0, 60_000, 60_000))
    folder = folder_of(tmp_path, a_txt=wide)
    most = open_task("text", '{"choices":16,"prefix":800,"continuation":200}', folder)
    choices = choices_of(most.draw(seed(1)).data)
    assert (len(choices.prefix), len(choices.continuations)) == (800, MAX_CHOICES)
    most = open_task("embedding", '{"choices":16,"passage":235}', folder)
    assert len(passages_of(most.draw(seed(1)).data).texts) == 17
    assert len(most.draw(seed(1)).data) <= MAX_READING_BYTES


# --- a labelled set


@pytest.mark.parametrize(
    ("arrays", "parameters", "words"),
    [
        ({"inputs": np.zeros((4, 2), "f4")}, "", "has not exactly the tensors inputs and labels"),
        ({"inputs": np.zeros((4, 2), "f4"), "labels": np.zeros(3, "i8")}, "", "labels (n,)"),
        ({"inputs": np.zeros((4, 2), "f4"), "labels": np.zeros((4, 1), "i8")}, "", "labels (n,)"),
        ({"inputs": np.zeros(4, "f4"), "labels": np.zeros(4, "i8")}, "", "labels (n,)"),
        ({"inputs": np.zeros((0, 2), "f4"), "labels": np.zeros(0, "i8")}, "", "labels (n,)"),
        ({"inputs": np.zeros((4, 2), "f4"), "labels": np.zeros(4, "f4")}, "", "not integers"),
        ({"inputs": np.zeros((4, 2), "f4"), "labels": np.zeros(4, "i8")}, "", "are not of 2 to"),
        ({"inputs": np.zeros((4, 2), "f4"), "labels": np.array([0, 1, -1, 1])}, "", "not of 2"),
        (
            {"inputs": np.zeros((4, 2), "f4"), "labels": np.array([0, 1, 2, 1])},
            '{"classes":2}',
            "are not of 2 to",
        ),
        ({"inputs": np.zeros((4, 0), "f4"), "labels": np.arange(4)}, "", "an input is empty"),
        ({"inputs": np.zeros((2, 2**22), "f4"), "labels": np.arange(2)}, "", "or over 8388608"),
        ({"inputs": np.zeros((4, 2), "u4"), "labels": np.arange(4)}, "", "the dtype 'U32' is not"),
    ],
)  # fmt: skip
def test_what_is_no_labelled_set(tmp_path: Path, arrays, parameters: str, words: str) -> None:
    save_file(arrays, tmp_path / FILE)
    assert words in refused("tensor", parameters, tmp_path)


def test_a_file_that_lies_about_itself(tmp_path: Path) -> None:
    assert "No such file" in refused("tensor", "", tmp_path)
    (tmp_path / FILE).write_bytes(b"\xff" * 100)
    assert "is over its limit" in refused("tensor", "", tmp_path)
    save_file({"inputs": np.zeros((4, 2), "f4"), "labels": np.arange(4)}, tmp_path / FILE)
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole[:-1])
    assert "the tensors take" in refused("tensor", "", tmp_path)
