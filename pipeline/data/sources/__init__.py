"""What images there are, with their labels (a source), wherever their bytes lie (a place)."""

from pipeline.data.sources.catalogue import SOURCES
from pipeline.data.sources.contents import hashed, read_again
from pipeline.data.sources.listing import carried, listed, place_of
from pipeline.data.sources.place import Place

__all__ = ["SOURCES", "Place", "carried", "hashed", "listed", "place_of", "read_again"]
