"""Backhaul: background data sync for Python programs, on Celery. A host app imports this package alone."""
