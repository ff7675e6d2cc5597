"""What docs/type-mapping.md promises: every type and random tables, over all pairs of engines and on every path."""
