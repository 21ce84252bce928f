"""The protocol: what to send and how to read what comes back, without I/O but in the two transports."""
