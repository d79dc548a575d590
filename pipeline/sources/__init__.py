"""What images there are, with their labels (a source), wherever their bytes lie (a place)."""

from pipeline.sources.catalogue import SOURCES
from pipeline.sources.contents import hashed, read_again
from pipeline.sources.listing import carried, listed, place_of
from pipeline.sources.place import Place

__all__ = ["SOURCES", "Place", "carried", "hashed", "listed", "place_of", "read_again"]
