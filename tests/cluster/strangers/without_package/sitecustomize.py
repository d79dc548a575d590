"""A worker whose environment lacks Headswap: Python runs this first where the folder is on its path."""

import sys


class Lacking:
    @staticmethod
    def find_spec(name, *_):
        if name.partition(".")[0] == "pipeline":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Lacking)
