"""Ways to damage a checkpoint's files, each of which gives the file that it hurt."""

from janus_jax.checkpoint import checksums


def largest(directory):
    return max((p for p in directory.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def flip(directory):
    file = largest(directory)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 16
    file.write_bytes(content)
    return file


def cut(directory):
    file = largest(directory)
    file.write_bytes(file.read_bytes()[:-1])
    return file


def lose(directory):
    file = largest(directory)
    file.unlink()
    return file


def unsummed(directory):
    file = directory / checksums.NAME
    file.unlink()
    return file


def scrambled(directory):
    file = directory / checksums.NAME
    file.write_text("[1, 2")
    return file


# How -> what is said of the file.
DAMAGE = {flip: "bytes have changed", cut: "bytes, ", lose: "cannot be read (No such file", unsummed: "No such file",
          scrambled: "bytes have changed"}  # fmt: skip
