"""Texts and their slots: found again whatever was added or forgotten, also where hashes are the same."""

from random import Random
from unittest import mock

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.core.liveness.texts import NOWHERE, Names, Places, TextIndex, Texts


def few_hashes(_: TextIndex, values: pl.Series) -> npt.NDArray[np.uint64]:
    """Nearly everything shares its hash with something."""
    return np.array([len(value) % 3 for value in values], np.uint64)


@pytest.mark.parametrize("collide", [False, True], ids=["its own hashes", "nearly all hashes the same"])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1 << 40))
def test_an_index_finds_what_a_dict_finds(collide: bool, seed: int) -> None:  # noqa: FBT001 - a parameter
    rng = Random(seed)
    index, known, free = TextIndex(seed), dict[str, int](), list(range(200))
    index.grow(200)
    rng.shuffle(free)
    with mock.patch.object(TextIndex, "_hash", few_hashes if collide else TextIndex._hash):
        for _ in range(8):
            new = {"".join(rng.choices("abc", k=rng.randrange(1, 20))) for _ in range(rng.randrange(15))} - known.keys()
            added = {text: free.pop() for text in new}
            index.add(np.array(list(added.values()), np.int64), pl.Series(list(added), dtype=pl.String))
            known |= added
            if rng.random() < 0.3:
                gone = set(rng.sample(sorted(known), len(known) // 2))
                free += [slot for text, slot in known.items() if text in gone]
                known = {text: slot for text, slot in known.items() if text not in gone}
                index.keep(np.array(sorted(known.values()), np.int64))
            asked = [*known, *("".join(rng.choices("abcd", k=rng.randrange(6))) for _ in range(9))]
            rng.shuffle(asked)
            assert index.find(pl.Series(asked)).tolist() == [known.get(text, NOWHERE) for text in asked]
            assert index.count == len(known)


def test_texts_that_are_written_over_do_not_pile_up() -> None:
    texts, rewritten = Texts(), 0
    texts.grow(1_000)
    slots = np.arange(1_000)
    for i in range(60):
        before = texts._written
        texts.put(slots, pl.Series([f"some quite long text, number {i:06d}"] * 1_000))
        rewritten += texts._written < before
    assert rewritten >= 1
    assert texts.at(np.array([0, 999])).to_list() == ["some quite long text, number 000059"] * 2


def test_names_are_numbered_in_order_and_forgotten_when_nobody_uses_them() -> None:
    names = Names(seed=1)
    assert names.codes(pl.Series(["a", "b", "a", "c"])).tolist() == [0, 1, 0, 2]
    renumbered = names.only(np.array([0, 2]))
    assert (renumbered[[0, 2]].tolist(), len(names)) == ([0, 1], 2)
    assert names.at(renumbered[[2, 0]]).to_list() == ["c", "a"]
    assert (names.known("c"), names.known("b")) == (1, NOWHERE)


def test_zones_of_the_same_name_in_two_regions_are_two() -> None:
    places = Places(seed=1)
    codes = places.codes(pl.Series(["eu", "us", "eu"]), pl.Series(["a", "a", "a"]))
    assert codes.tolist() == [1, 2, 1]
    assert places.at(codes).rows() == [("eu", "a"), ("us", "a"), ("eu", "a")]
    assert places.at(np.array([0])).rows() == [("", "")]
