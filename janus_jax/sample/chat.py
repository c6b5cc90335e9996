"""A conversation in the terminal: words, pictures, and drawings that can be asked about next."""

import os
import shlex

from janus_jax.common.paths import expanded
from janus_jax.common.text import bounded
from janus_jax.data.image_parts import open_picture

HELP = """Ask anything, or:
  /image FILE  show a picture with your next words
  /draw TEXT   draw, save, and show the drawing with your next words
  /edit TEXT   edit what you showed or drew last, save, and show it with your next words
  /reset       begin anew
  /help        this
  /quit        leave (as Ctrl-D and Ctrl-C do)"""


def converse(ask, draw, edit, images=(), read=input, write=print):
    """Reads lines until /quit, Ctrl-D or Ctrl-C; a line that cannot be used is answered by one
    line.

    ask(messages, stream) -> the answer's content, told to `stream` as it comes; draw(text) -> (picture, where
    it was saved), edit(pictures, text) likewise. read(prompt) -> a line; write(*text, end=, flush=) as print.
    """
    talk = Chat(ask, draw, edit, write)
    write(HELP)
    try:
        for path in images:
            talk.image(path)
        while talk.line(read("> ").strip()):
            pass
    except (EOFError, KeyboardInterrupt):
        write()


class Chat:
    """The history, the pictures that wait for the next words, and the last that did."""

    def __init__(self, ask, draw, edit, write):
        self.ask = ask
        self.draw = draw
        self.edit = edit
        self.write = write
        self.history = []
        self.waiting = []
        self.shown = []

    def line(self, line: str) -> bool:
        """Does what a line says; False when it says to leave."""
        command, rest = (*line.split(None, 1), "", "")[:2]
        try:
            if rest and command in ("/quit", "/reset", "/help"):
                raise ValueError(f"{command} takes no words: {rest}")
            if command == "/quit":
                return False
            if command == "/image":
                for path in named_files(rest):
                    self.image(path)
            elif command == "/draw":
                picture, path = self.draw(rest.strip())
                self.waiting.append(picture)
                self.write(f"{path}  (shown with your next words)")
            elif command == "/edit":
                pictures = self.waiting or self.shown
                if not pictures:
                    raise ValueError("/edit has no picture: /image or /draw one first")
                picture, path = self.edit(pictures, rest.strip())
                self.waiting = [picture]
                self.write(f"{path}  (shown with your next words)")
            elif command == "/reset":
                self.history = []
                self.waiting = []
                self.shown = []
                self.write("begun anew")
            elif command == "/help":
                self.write(HELP)
            elif command.startswith("/"):
                self.write(f"no command {command}; /help lists them")
            elif line:
                self.say(line)
        except (ValueError, OSError) as error:
            told = "; ".join(line.strip() for line in bounded(str(error)).splitlines())
            full = "the context is" in told and self.history
            self.write(told + (". Or begin anew: /reset" if full else ""))
        return True

    def image(self, path: str):
        self.waiting.append(open_picture(path, "/image"))
        self.write(f"{path}: seen with your next words")

    def say(self, text: str):
        """One turn; an answer that fails leaves the history as it was."""
        parts = [{"type": "image", "image": picture} for picture in self.waiting]
        asked = {"role": "user", "content": [*parts, {"type": "text", "text": text}]}
        answer = self.ask([*self.history, asked], lambda more: self.write(more, end="", flush=True))
        self.write()
        self.history += [asked, {"role": "assistant", "content": answer}]
        self.shown = self.waiting or self.shown
        self.waiting = []


def named_files(words: str) -> list[str]:
    """The files that are named behind /image: one as it is written, spaces too, or several, each
    perhaps in quotes or with backslashes, as a shell and a terminal's drag and drop write them."""
    if not words:
        raise ValueError("/image needs a file: /image cat.png")
    if os.path.exists(expanded(words)):
        return [expanded(words)]
    try:
        found = list(map(expanded, shlex.split(words)))
    except ValueError:  # a lone quote
        found = [words]
    quoted = any(mark in words for mark in "\"'\\")
    there = all(map(os.path.exists, found))
    return found if quoted or there else [words]
