"""UTF-8 for every file, whatever the locale says."""

import locale
import os
import sys


def use_utf8() -> None:
    """Start this process's Python again in its UTF-8 mode, unless it reads files as UTF-8 already.

    Python takes the encoding of files and of names from the locale: Latin-1 in some shells, ASCII
    in some containers. The project's files are UTF-8. The processes that this one starts inherit
    the mode. A terminal that cannot show a character shows `?`.
    """
    encoding = locale.getpreferredencoding(False).lower().replace("-", "")
    if encoding != "utf8" and os.environ.get("PYTHONUTF8") != "1":
        variables = {**os.environ, "PYTHONUTF8": "1"}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], variables)
    if hasattr(sys.stdout, "reconfigure"):  # not in a notebook
        sys.stdout.reconfigure(errors="replace")
