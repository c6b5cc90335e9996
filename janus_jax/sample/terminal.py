"""What the commands share: plain errors, and a bar that shows how far a drawing is."""

import sys
import time


def plainly(main, argv):
    """Runs a command; what a user can mend is one message on stderr and exit code 1, not a stack trace."""
    import jax
    from absl import logging

    logging.set_verbosity(logging.WARNING)
    try:
        main(argv)
    except (ValueError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        first = str(error).split("\n")[0]
        sys.exit(f"out of memory: ask for fewer pictures at once, or give another --dtype ({first})")
    except KeyboardInterrupt:
        sys.exit("\nstopped")


class Progress:
    """`progress` for `generate`: steps done, images a minute and the time left, on stderr.

    A bar where stderr is a terminal; elsewhere a line about every ten seconds.
    """

    def __init__(self, images: int, out=None, clock=time.monotonic):
        self.images = images
        self.out, self.clock = out or sys.stderr, clock
        self.live = self.out.isatty()
        self.begun = self.told = clock()

    def __enter__(self):
        if self.live:
            self.out.write(f"drawing {self.images} (the first time compiles) ...")
            self.out.flush()
        return self

    def __exit__(self, *_):
        if self.live:
            self.out.write("\n")

    def __call__(self, done: int, total: int):
        now = self.clock()
        if not self.live and done < total and now - self.told < 10:
            return
        self.told, spent = now, max(now - self.begun, 1e-9)
        rate, left = 60 * self.images * done / total / spent, spent * (total - done) / done
        filled = "#" * (24 * done // total)
        line = f"{done}/{total} steps  {rate:.3g} images/min  {left:.0f} s left"
        self.out.write(f"\r\033[K[{filled:<24}] {line}" if self.live else line + "\n")
        self.out.flush()
