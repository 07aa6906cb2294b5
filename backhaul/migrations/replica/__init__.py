"""The revisions of a replica's tables, oldest first."""
