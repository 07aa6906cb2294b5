"""How a replica speaks to a server: the seam, HTTP, tus, and a server in memory for tests."""
