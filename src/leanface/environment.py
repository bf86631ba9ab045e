"""What a process finds around it: the project that it is started in, and what a bare container lacks."""

import getpass
import os
import tempfile
from pathlib import Path

from leanface.device import limit_threads
from leanface.errors import ConfigError


def prepare_process() -> None:
    """Set what numerical libraries, DVC and MLflow look for; to be called before any of them is loaded.

    Threads stay within the CPU quota. A user without a name gets a number for one, a user without a home a private
    folder: libraries fail without them. Where the home cannot be written to, caches go to that folder.
    """
    limit_threads()
    try:
        getpass.getuser()
    except (KeyError, OSError):  # as Python's version has it
        os.environ["LOGNAME"] = str(os.getuid())
    try:
        home = Path.home()
    except RuntimeError:
        os.environ["HOME"] = _private_folder()
        return
    cache = home / ".cache"
    if "XDG_CACHE_HOME" not in os.environ and not os.access(cache if cache.exists() else home, os.W_OK | os.X_OK):
        folder = _private_folder()
        os.environ["XDG_CACHE_HOME"] = folder
        os.environ.setdefault("MPLCONFIGDIR", folder)


def find_project(folder: Path) -> Path | None:
    """Return the project that a folder is in, like Git: the nearest one upwards with params.yaml and conf/."""
    folders = (folder, *folder.parents)
    return next((each for each in folders if (each / "params.yaml").exists() and (each / "conf").is_dir()), None)


def enter_project() -> None:
    """Change to the project's root folder, which all its paths are relative to.

    Raises:
        ConfigError: the current folder is not in a project.
    """
    root = find_project(Path.cwd())
    if root is None:
        raise ConfigError(
            f"{Path.cwd()} is not in a LeanFace project: neither it nor a folder above it has params.yaml and conf/. "
            "Run this in a clone of LeanFace."
        )
    os.chdir(root)


def _private_folder() -> str:
    """Return a folder of this user's that nobody else can write to, the same one each time if possible."""
    folder = Path(tempfile.gettempdir(), f"leanface-cache-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        if folder.is_dir() and not folder.is_symlink() and status.st_uid == os.getuid() and not status.st_mode & 0o022:
            return str(folder)
    except OSError:
        pass  # another user's file, say
    return tempfile.mkdtemp(prefix="leanface-cache-")
