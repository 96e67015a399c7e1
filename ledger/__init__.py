"""What the chain is: values, bytes, disk. Nothing here knows of sockets, clocks or tasks."""
