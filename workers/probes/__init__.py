"""What a worker knows of its machine: a probe for each thing that can be asked, and `Machine`, all of them together.

Each answers yes, no or unknown, at once, from what it knows; what may take time goes on beside the worker.
"""
