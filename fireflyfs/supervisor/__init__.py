"""A cluster on one machine: its directory, processes, mounts, and what keeps them running."""
