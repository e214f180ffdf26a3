"""The binaries. Only they read flags, choose an execution context and handle signals."""
