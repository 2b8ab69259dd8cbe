"""The job protocol on Redis: every key, script and client is in this folder, and nowhere else."""
