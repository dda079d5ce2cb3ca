"""What an update means to a chunk, and how two listings differ."""

from __future__ import annotations

from chain_replication.resync import LAST, Difference, Listed, compare
from chain_replication.versions import (
    AppliedTag,
    ChunkMeta,
    Decision,
    Tombstone,
    Tombstones,
    Verdict,
    decide_client,
    decide_forward,
    decide_recovery,
    with_tag,
)
from fireflyfs.limits import MAX_APPLIED_TAGS

META = ChunkMeta(5, 100, 1, 3, tags=(AppliedTag(1, 10, 4), AppliedTag(2, 20, 5)))
GRAVE = Tombstone(9, (AppliedTag(1, 10, 9),))


def client(meta: ChunkMeta | None, grave: Tombstone | None, sequence: int) -> Decision:
    return decide_client(meta, grave, removes=False, client=1, sequence=sequence)


def test_the_head_knows_what_a_client_has_done() -> None:
    assert client(META, None, 11) == Decision(Verdict.APPLY, 6)
    assert client(META, None, 10) == Decision(Verdict.DONE, 4)
    assert client(META, None, 9).verdict is Verdict.SUPERSEDED
    assert client(None, None, 1) == Decision(Verdict.APPLY, 1)
    assert client(None, GRAVE, 10) == Decision(Verdict.DONE, 9)
    assert client(None, GRAVE, 11) == Decision(Verdict.APPLY, 10)


def test_a_forward_is_known_by_its_version() -> None:
    def decide(meta: ChunkMeta | None, grave: Tombstone | None, version: int) -> Decision:
        return decide_forward(meta, grave, version=version, client=1, sequence=10)

    assert decide(META, None, 6) == Decision(Verdict.APPLY, 6)
    assert decide(META, None, 5).verdict is Verdict.DONE
    assert decide(META, None, 4).verdict is Verdict.DONE
    assert decide(META, None, 7).verdict is Verdict.GAP
    assert decide(None, None, 7) == Decision(Verdict.APPLY, 7)
    assert decide(None, GRAVE, 7).verdict is Verdict.DONE
    other = decide_forward(None, GRAVE, version=1, client=3, sequence=1)
    assert other == Decision(Verdict.APPLY, 1), "one replica may have forgotten a tombstone"


def test_recovery_overrules_what_was_there_before_it_began() -> None:
    def decide(chain_version: int, version: int) -> Verdict:
        last = AppliedTag(1, 1, version)
        return decide_recovery(
            META, None, chain_version=chain_version, version=version, last=last
        ).verdict

    assert decide(4, 2) is Verdict.APPLY
    assert decide(3, 5) is Verdict.DONE
    assert decide(3, 6) is Verdict.APPLY


def test_tags_are_replaced_and_bounded() -> None:
    tags: tuple[AppliedTag, ...] = ()
    for number in range(1, MAX_APPLIED_TAGS + 10):
        tags = with_tag(tags, AppliedTag(number, 1, number))
    assert len(tags) == MAX_APPLIED_TAGS
    assert tags[-1].client == MAX_APPLIED_TAGS + 9
    again = with_tag(tags, AppliedTag(tags[0].client, 2, 999))
    assert len(again) == MAX_APPLIED_TAGS
    assert again[-1] == AppliedTag(tags[0].client, 2, 999)


def test_tombstones_are_bounded() -> None:
    graves = Tombstones(limit=2)
    for name in (b"a", b"b", b"a", b"c"):
        graves.add(name, GRAVE)
    assert [graves.get(n) is not None for n in (b"a", b"b", b"c")] == [True, False, True]


def listed(name: bytes, version: int = 1, checksum: int = 1, *, pending: bool = False) -> Listed:
    return Listed(name, version, checksum, 10, pending)


def test_listings_are_compared() -> None:
    ours = [listed(b"a"), listed(b"b", 2), listed(b"c"), listed(b"d", checksum=2), listed(b"n", 0)]
    theirs = [listed(b"b"), listed(b"c"), listed(b"d"), listed(b"x")]
    assert compare(ours, True, theirs, True) == Difference(LAST, [b"x"], [b"a", b"b", b"d"])
    pending = [listed(b"c", pending=True)]
    assert compare([listed(b"c")], True, pending, True).copies == [b"c"]


def test_pages_are_compared_as_far_as_both_reach() -> None:
    ours = [listed(b"a"), listed(b"b"), listed(b"e")]
    theirs = [listed(b"b"), listed(b"c")]
    found = compare(ours, False, theirs, False)
    assert found == Difference(b"c", [b"c"], [b"a"])
    assert compare(ours, True, theirs, False).upto == b"c"
    assert compare([], True, theirs, True) == Difference(LAST, [b"b", b"c"], [])
