"""The revisions of the server's tables, oldest first."""
