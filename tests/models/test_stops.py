"""Stop strings: the text ends before the first, and nothing that is out is taken back."""

from hypothesis import given
from hypothesis import strategies as st

from models.stops import Ending, Word

BITS = st.text("ab", max_size=3).map(str.encode)
STOPS = st.lists(st.text("ab", min_size=1, max_size=4).map(str.encode), min_size=1, max_size=3)


def ended(ending: Ending, words: list[Word]) -> list[Word]:
    """All that comes out of words, the rest at the end included."""
    out: list[Word] = []
    for word in words:
        out += ending.add(word)
        if ending.stopped:
            return out
    return out + ending.rest()


def words_of(*datas: bytes) -> list[Word]:
    return [Word(number, data) for number, data in enumerate(datas)]


def test_what_may_begin_a_stop_string_waits() -> None:
    ending = Ending([b"STOP"])
    assert [word.data for word in ending.add(Word(0, b"go "))] == [b"go "]
    assert ending.add(Word(1, b"on S")) == []
    assert ending.add(Word(2, b"TO")) == []
    assert [word.data for word in ending.add(Word(3, b"RE"))] == [b"on S", b"TO", b"RE"]


def test_the_tokens_of_a_stop_string_come_without_its_bytes() -> None:
    out = ended(Ending([b"\n\n"]), words_of(b"end.\n", b"\nMore", b"never read"))
    assert [(word.token, word.data) for word in out] == [(0, b"end."), (1, b"")]


def test_without_stop_strings_nothing_waits() -> None:
    words = words_of(b"a", b"", b"b")
    assert ended(Ending([]), words) == words


@given(STOPS, st.lists(BITS))
def test_the_text_is_what_stands_before_the_first_stop_string(
    stops: list[bytes], datas: list[bytes]
) -> None:
    text = b"".join(datas)
    starts = [at for stop in stops if (at := text.find(stop)) >= 0]
    ending = Ending(stops)
    out = b"".join(word.data for word in ended(ending, words_of(*datas)))
    assert ending.stopped == bool(starts)
    # A later stop string may be whole before an earlier one that is longer.
    if starts:
        assert text.startswith(out)
        assert not any(stop in out for stop in stops)
        assert any(text[len(out) :].startswith(stop) for stop in stops)
    else:
        assert out == text


@given(STOPS, st.lists(BITS, max_size=12), st.integers(0, 12))
def test_whoever_goes_on_after_what_is_out_comes_to_the_same_end(
    stops: list[bytes], datas: list[bytes], count: int
) -> None:
    words = words_of(*datas)
    whole = ended(Ending(stops), words)
    first = Ending(stops)
    out = [word for word in words[:count] for word in first.add(word)]
    if first.stopped:
        return
    second = Ending(stops)
    for word in out:
        second.add(word)
    assert not second.stopped
    second.rest()
    assert out + ended(second, words[len(out) :]) == whole
