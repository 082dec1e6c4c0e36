"""The allocator is told when a crowd comes and when it has gone, not at every stream."""

from vaultaire.allocator import CROWD_BLOCK_BYTES, CROWD_STREAMS, USUAL_BLOCK_BYTES, Allocator


def test_only_a_crowd_that_comes_or_goes_is_told():
    told = []
    allocator = Allocator(lambda _, threshold: told.append(threshold))
    for streams in [*range(CROWD_STREAMS + 10), *range(CROWD_STREAMS + 10, CROWD_STREAMS // 2, -1)]:
        allocator.streams_changed(streams)
    assert told == [CROWD_BLOCK_BYTES]
    for streams in range(CROWD_STREAMS // 2, -1, -1):
        allocator.streams_changed(streams)
    assert told == [CROWD_BLOCK_BYTES, USUAL_BLOCK_BYTES]


def test_the_real_one_takes_it():
    allocator = Allocator()
    allocator.streams_changed(CROWD_STREAMS)
    allocator.streams_changed(0)
