"""Folders of charlm in the home folder of the user, who may have none (as often in a container)."""

from pathlib import Path

from charlm.errors import EnvironmentFailure

SET_HOME = "this user has no home folder; expected one. Set HOME"


def cache_home() -> Path:
    """Return the user's folder for what can be made again. Raises EnvironmentFailure."""
    import platformdirs

    try:
        return _absolute(platformdirs.user_cache_dir("charlm"))
    except RuntimeError as error:
        raise EnvironmentFailure(
            f"the id cache has no folder: {SET_HOME}, or name a folder with CHARLM_CACHE"
        ) from error


def state_home() -> Path | None:
    """Return the user's folder for histories, or None if the user has no home folder."""
    import platformdirs

    try:
        return _absolute(platformdirs.user_state_dir("charlm"))
    except RuntimeError:
        return None


def _absolute(folder: str) -> Path:
    """Return the path of a folder. Raises RuntimeError for one below a home that is not known.

    Newer releases of platformdirs raise it themselves; older ones return a path below "~".
    """
    path = Path(folder)
    if not path.is_absolute():
        raise RuntimeError(SET_HOME)
    return path


def is_homeless(error: Exception) -> bool:
    """Return whether a library failed because it found no home folder of the user."""
    return isinstance(error, RuntimeError) and "home directory" in str(error)
