"""The demo: one story with real processes, told as it happens, from which nothing is left."""
