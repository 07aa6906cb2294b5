"""How a replica's folder is configured, and how Celery is set up for it."""
