"""Where a binary's TFF computations run."""

from __future__ import annotations

import os
from typing import TextIO

from absl import flags

from fedrecon.errors import InputError

RUNTIMES = ("in_process", "native")
RUNTIME_HELP = (
    "in_process: run TFF computations in this process, on its GPUs or CPUs. native: run them in "
    "TFF's own worker process, on the CPU."
)
GPU_MEMORY_LIMIT_HELP = (
    "Megabytes that TensorFlow may take of each GPU. Without it TensorFlow takes as much as it "
    "needs."
)


def define_flags(default: str | None) -> tuple[flags.FlagHolder, flags.FlagHolder]:
    """Defines --runtime and --gpu_memory_limit_mb, for binaries whose flags are not `Settings`."""
    return (
        flags.DEFINE_enum("runtime", default, RUNTIMES, RUNTIME_HELP),
        flags.DEFINE_integer("gpu_memory_limit_mb", None, GPU_MEMORY_LIMIT_HELP, lower_bound=1),
    )


def start(
    runtime: str, gpu_memory_limit_mb: int | None, *, file: TextIO | None = None
) -> list[int]:
    """Makes a runtime the default of this process and says what it runs on, in one line.

    Args:
      runtime: One of `RUNTIMES`.
      gpu_memory_limit_mb: For `in_process`.
      file: Where the line goes; by default stdout.

    Returns:
      The ids of the processes that do the work.

    Raises:
      InputError: If a limit is given that has no effect.
    """
    if runtime == "native":
        from fedrecon.execution import native

        if gpu_memory_limit_mb is not None:
            raise InputError("--gpu_memory_limit_mb has no effect with --runtime=native.")
        worker = native.set_native_context()
        print(f"Runs in TFF's own worker process ({worker.pid}), on the CPU.", file=file)
        return [os.getpid(), worker.pid]

    import tensorflow as tf

    from fedrecon.execution import in_process

    in_process.set_in_process_context(gpu_memory_limit_mb=gpu_memory_limit_mb)
    gpus = tf.config.list_physical_devices("GPU")
    names = [tf.config.experimental.get_device_details(gpu).get("device_name") for gpu in gpus]
    threads = f"{in_process.num_threads()} CPU threads; TensorFlow sees no GPU"
    print(f"Runs in this process, on {', '.join(map(str, names)) or threads}.", file=file)
    return [os.getpid()]
