"""Numbers in words, for whatever prints them."""


def counted(number: int, one: str, several: str = "") -> str:
    """Return a number with its noun: `several` is the plural where that is not `one` with an s.

    >>> counted(1, "class", "classes"), counted(1200, "image")
    ('1 class', '1,200 images')
    """
    return f"{number:,} {one if number == 1 else several or one + 's'}"
