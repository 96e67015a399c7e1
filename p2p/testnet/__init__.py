"""A network of daemons on this machine: made, watched, disturbed as a scenario says, and judged."""
