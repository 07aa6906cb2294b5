"""The sync server: one feed per scope, in SQLite or PostgreSQL, spoken to as `docs/protocol.md` says."""
