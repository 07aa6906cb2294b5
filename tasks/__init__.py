"""The Celery tasks: each takes a message to the journey that does the work, and tells Celery what came of it."""
