"""Example settings and the systemd unit."""
