"""Everything that is started as a process: workers, beat, and what keeps them together."""
