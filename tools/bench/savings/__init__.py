"""What deduplication and compression save, by cut rules, on corpora made from what this machine has."""
