"""From records to numbers: one frame, entries of tables, statistics, verdicts on what was published. No torch."""
