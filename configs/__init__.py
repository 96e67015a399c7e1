"""Constants of networks, example settings, scenarios and the systemd unit."""
