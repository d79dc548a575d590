"""A trained run read back and put to use on images that no stage has seen."""
