"""Splits: their shares, what stays together, and the check that finds a planted leak."""

from __future__ import annotations

import numpy as np
import pytest

from runs.errors import IntegrityError
from safety_classifier.data.dedup import digests
from safety_classifier.data.splits import SHARES, assign, check_no_leak
from tests.safety_classifier.data_support import frame_of, sentence

NOBODY = np.zeros(20000, bool)


def test_shares_are_as_declared():
    keys = digests([str(i) for i in range(20000)])
    split = assign(np.arange(20000), keys, NOBODY, seed=0)
    for name, share in SHARES.items():
        assert abs((split == name).mean() - share) < 0.01
    assert (split != assign(np.arange(20000), keys, NOBODY, seed=1)).any()


def test_a_component_has_one_split_in_any_order():
    together = np.arange(3000) // 3
    keys = digests([str(i) for i in range(3000)])
    split = assign(together, keys, NOBODY[:3000], seed=0)
    assert all(len(set(split[i : i + 3])) == 1 for i in range(0, 3000, 3))
    back = assign(together[::-1].copy(), keys[::-1].copy(), NOBODY[:3000], seed=0)
    assert (back[::-1] == split).all()


def test_official_test_rows_take_their_component_along():
    test_rows = np.array([True, False, False, False])
    split = assign(np.array([0, 0, 1, 2]), digests(list("abcd")), test_rows, seed=0)
    assert split[:2].tolist() == ["test", "test"]


def leak_free():
    frame = frame_of([sentence(i) for i in range(0, 200, 5)])
    frame["split"] = np.where(np.arange(40) < 30, "train", "test")
    check_no_leak(frame)
    return frame


def test_a_planted_copy_is_caught():
    frame = leak_free()
    frame.loc[35, "text"] = frame.loc[3, "text"].upper() + "!!"
    with pytest.raises(IntegrityError, match=r"row 3 \(test, train\) and row 35 \(test, test\)") as caught:
        check_no_leak(frame)
    assert frame.loc[3, "text"] not in str(caught.value)


def test_a_planted_near_copy_is_caught():
    frame = leak_free()
    frame.loc[35, "text"] = frame.loc[3, "text"] + " indeed"
    with pytest.raises(IntegrityError, match="leak between splits"):
        check_no_leak(frame)


def test_a_parted_group_is_caught():
    frame = leak_free()
    frame.loc[[3, 35], "group"] = "g"
    with pytest.raises(IntegrityError, match="1 pairs of rows leak"):
        check_no_leak(frame)


def test_a_parted_preference_is_caught():
    frame = leak_free()
    frame.loc[[29, 30], "pair"] = 0
    with pytest.raises(IntegrityError, match="1 pairs of rows leak"):
        check_no_leak(frame)


def test_one_text_in_two_contexts_is_no_leak():
    frame = leak_free()
    frame.loc[35, "text"] = frame.loc[3, "text"]
    frame.loc[35, "context"] = "another question altogether"
    check_no_leak(frame)
