"""A soak: bkscaler as users run it, on real sockets and in real time, among clients and faults."""
