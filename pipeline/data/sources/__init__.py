"""A source lists images with their labels; a place, such as a folder or an archive, has their bytes."""

from pipeline.data.sources.catalogue import SOURCES
from pipeline.data.sources.contents import hashed, read_again
from pipeline.data.sources.listing import carried, listed, place_of
from pipeline.data.sources.place import Place

__all__ = ["SOURCES", "Place", "carried", "hashed", "listed", "place_of", "read_again"]
