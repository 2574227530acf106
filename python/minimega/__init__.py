"""megaform's bindings under the name that scripts for minimega import."""

from megaform import Error, __version__, as_dict, connect, discard, megaform, minimega, print_rows

__all__ = ["Error", "as_dict", "connect", "discard", "megaform", "minimega", "print_rows", "__version__"]
