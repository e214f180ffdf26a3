"""Where TFF computations run. Nothing is installed by importing; the binaries choose a context."""
