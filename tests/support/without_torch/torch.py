"""What stands in PyTorch's place in child processes that need none: TensorBoard's writer imports it
where it is there, which takes longer than such a run's steps, and goes on without."""

raise ImportError("hidden from this process: see tests/support/processes.py")
