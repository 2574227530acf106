"""megaform's bindings under the name that scripts for minimega import."""

from megaform import *  # noqa: F401,F403
from megaform import __version__  # noqa: F401
