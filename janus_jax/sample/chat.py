"""A conversation in the terminal: words, pictures, and drawings that can be asked about next."""

from janus_jax.data.messages import open_picture

HELP = """Ask anything, or:
  /image FILE  show a picture with your next words
  /draw TEXT   draw, save, and show the drawing with your next words
  /reset       begin anew
  /help        this
  /quit        leave (as Ctrl-D and Ctrl-C do)"""


def run(ask, draw, images=(), read=input, write=print):
    """Reads lines until /quit, Ctrl-D or Ctrl-C; a line that cannot be used is answered by one line.

    ask(messages, stream) -> the answer, told to `stream` as it comes; draw(text) -> (picture, where it was
    saved). read(prompt) -> a line; write(*text, end=, flush=) as print.
    """
    talk = Chat(ask, draw, write)
    write(HELP)
    try:
        for path in images:
            talk.image(path)
        while talk.line(read("> ").strip()):
            pass
    except (EOFError, KeyboardInterrupt):
        write()


class Chat:
    """The history, and the pictures that wait for the next words."""

    def __init__(self, ask, draw, write):
        self.ask, self.draw, self.write = ask, draw, write
        self.history, self.waiting = [], []

    def line(self, line: str) -> bool:
        """Does what a line says; False when it says to leave."""
        command, _, rest = line.partition(" ")
        if command == "/quit":
            return False
        try:
            if command == "/image":
                self.image(rest.strip())
            elif command == "/draw":
                picture, path = self.draw(rest.strip())
                self.waiting.append(picture)
                self.write(f"{path}  (shown with your next words)")
            elif command == "/reset":
                self.history, self.waiting = [], []
                self.write("begun anew")
            elif command == "/help":
                self.write(HELP)
            elif command.startswith("/"):
                self.write(f"no command {command}; /help lists them")
            elif line:
                self.say(line)
        except (ValueError, OSError) as error:
            self.write("; ".join(line.strip() for line in str(error).splitlines()))
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
        self.waiting = []
