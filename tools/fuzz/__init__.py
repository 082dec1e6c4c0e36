"""Long fuzzing runs, by hand. What they find is kept in tests/s3/corpus, which CI replays."""
