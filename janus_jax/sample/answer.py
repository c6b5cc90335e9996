"""The text of an answer, as its ids come."""


class Answer:
    """Takes ids until end of sentence, a stop or `most` ids, and tells `emit` each stretch of text
    that is sure.

    Sure text never ends inside a UTF-8 character, nor in what may become a stop string, nor in
    white space that may be the last; so the stretches joined are `text`, the answer with outer
    white space stripped.
    """

    def __init__(self, tokenizer, stop_ids, stop_strings, most: int, emit=None):
        self.tokenizer = tokenizer
        self.stop_ids = set(stop_ids)
        self.stop_strings = tuple(stop_strings)
        self.most = most
        self.emit = emit
        self.ids = []
        self.text = ""
        self.finish = None  # why it is done: "stop" or "length"

    @property
    def done(self) -> bool:
        return self.finish is not None

    def add(self, ids):
        """New ids, int [n]; those after the end are ignored. Where strings may end it, one is looked
        at after the other, so that what ends it does not depend on how many come at once."""
        some = [[i] for i in ids] if self.stop_strings else [ids]
        for few in some:
            if not self.done:
                self._add(few)

    def _add(self, ids):
        for i in map(int, ids):
            if i in self.stop_ids:
                self.finish = "stop"
                break
            self.ids.append(i)
            if len(self.ids) == self.most:
                self.finish = "length"
                break
        whole = self.tokenizer.decode(self.ids)
        found = [at for at in map(whole.find, self.stop_strings) if at >= 0]
        if found:
            self.finish = "stop"
        sure = whole[: min(found, default=None)] if self.done else whole[: self._sure(whole)]
        sure = sure.strip()
        if self.emit is not None and sure != self.text:
            self.emit(sure[len(self.text) :])
        self.text = sure

    def _sure(self, whole: str) -> int:
        """How much of unfinished text can no longer change; the decoder writes U+FFFD for half a
        character."""
        end = len(whole.rstrip("\ufffd"))
        for stop in self.stop_strings:
            for n in range(min(len(stop) - 1, end), 0, -1):
                if whole.startswith(stop[:n], end - n):
                    end -= n
                    break
        return end
