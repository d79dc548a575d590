"""Names, labels and paths are other people's: what of them could steer a terminal is escaped before it is printed."""


def printable(text: str) -> str:
    """Return a text as one line in which every letter that is not printable is escaped as Python would."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
