"""The shell: sockets, time, tasks, commands."""
