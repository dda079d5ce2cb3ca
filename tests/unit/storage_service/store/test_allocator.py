from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fireflyfs.limits import KIB, MIB
from storage_service.store.allocator import CLASSES, SlotMap, block_size, class_for


def test_classes_go_from_4_kib_to_64_mib() -> None:
    assert block_size(0) == 4 * KIB
    assert block_size(CLASSES - 1) == 64 * MIB


@given(st.integers(1, 64 * MIB))
def test_a_class_is_the_smallest_that_fits(length: int) -> None:
    size_class = class_for(length)
    assert length <= block_size(size_class)
    assert size_class == 0 or length > block_size(size_class - 1)


def test_warm_slots_go_first_and_cold_ones_come_back() -> None:
    slots = SlotMap()
    assert slots.take() is None
    slots.extend(3)
    assert [slots.take() for _ in range(4)] == [0, 1, 2, None]
    slots.release(1)
    assert slots.cool(5) == [1]
    slots.release(2)
    assert (slots.warm, slots.used) == (1, 1)
    assert [slots.take(), slots.take(), slots.take()] == [2, 1, None]


def test_a_slot_is_occupied_once_and_released_once() -> None:
    slots = SlotMap()
    slots.extend(2)
    assert slots.occupy(1)
    assert not slots.occupy(1)
    assert not slots.occupy(2)
    slots.release(1)
    with pytest.raises(ValueError, match="not used"):
        slots.release(1)


@given(st.lists(st.sampled_from(["take", "release", "cool", "extend"]), max_size=200))
def test_counts_agree_with_the_slots_in_use(steps: list[str]) -> None:
    slots = SlotMap()
    used: list[int] = []
    for step in steps:
        if step == "extend":
            slots.extend(3)
        elif step == "cool":
            slots.cool(2)
        elif step == "release" and used:
            slots.release(used.pop(0))
        elif step == "take":
            slot = slots.take()
            assert (slot is None) == (len(used) == len(slots))
            if slot is not None:
                assert slot not in used
                used.append(slot)
        assert slots.used == len(used)
