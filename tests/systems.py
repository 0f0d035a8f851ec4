"""Windows and macOS, as the files of charlm see them: without what these systems lack.

`emulate` changes this process for good, so it is for processes of its own: `environment` returns
the variables with which Python begins in one. Other packages keep what they need of Linux. What is
left out: the rest of each system, such as its paths, its processor, and other builds of packages.
"""

import builtins
import contextlib
import errno
import importlib
import io
import os
import platform
import re
import select
import shutil
import signal
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

VARIABLE = "EMULATED_SYSTEM"
SYSTEMS = {"windows": ("win32", "Windows", "AMD64"), "macos": ("darwin", "Darwin", "arm64")}
"""Platform of Python, name, and machine of each system."""
NO_MODULES = {"windows": {"fcntl", "grp", "pwd", "readline", "resource", "termios"}, "macos": set()}
LACKING = {
    "windows": {
        "os": """chown confstr fchmod fdatasync fork getegid geteuid getgid getloadavg getpgid
            getuid getxattr killpg mkfifo nice pread sched_getaffinity sched_setaffinity setsid
            statvfs sysconf uname wait O_CLOEXEC O_DIRECTORY O_NOFOLLOW O_NONBLOCK WNOHANG""",
        "signal": """alarm pause pthread_kill pthread_sigmask setitimer sigwait SIGALRM SIGCHLD
            SIGCONT SIGHUP SIGKILL SIGPIPE SIGQUIT SIGSTOP SIGTSTP SIGUSR1 SIGUSR2 SIGWINCH""",
        "select": "epoll poll PIPE_BUF",
    },
    "macos": {
        "os": "getxattr memfd_create pipe2 posix_fadvise sched_getaffinity sched_setaffinity",
        "signal": "sigtimedwait sigwaitinfo SIGRTMAX SIGRTMIN",
        "select": "epoll",
    },
}
"""Names of modules that a system lacks."""
_OPEN = builtins.open
LINUX_FILES = {"windows": ("/dev/std", "/proc", "/sys"), "macos": ("/proc", "/sys")}
WRONG_NAME = re.compile(
    r'[<>:"|?*\\\x00-\x1f]|[. ]$|^(con|prn|aux|nul|com\d|lpt\d)(\.|$)', re.IGNORECASE
)
IN_USE = "The process cannot access the file because it is being used by another process"


def environment(system: str, folder: Path) -> dict[str, str]:
    """Return the variables for processes that are to run on a system; `folder` gets a file."""
    (folder / "sitecustomize.py").write_text("import systems\nsystems.emulate()\n")
    here = Path(__file__).resolve().parent
    path = os.pathsep.join(map(str, (folder, here, here.parent)))
    return dict(os.environ) | {VARIABLE: system, "PYTHONPATH": path}


def emulate() -> None:
    """Let this process run on the system that the environment names."""
    system = os.environ[VARIABLE]
    lacking = {name: set(names.split()) for name, names in LACKING[system].items()}
    modules = (os, platform, select, signal, sys)
    views = {each.__name__: View(each, lacking.get(each.__name__, ())) for each in modules}
    kind, name, machine = SYSTEMS[system]
    views["sys"].others["platform"] = kind
    views["platform"].others |= {"system": lambda: name, "machine": lambda: machine}
    views["platform"].others["libc_ver"] = lambda: ("", "")
    if system == "windows":
        views["os"].others["kill"] = lambda pid, number: os._exit(99)  # 0 ends a process too
        views["select"].others["select"] = _fails(OSError(errno.ENOTSOCK, "Not a socket"))
        _patch_files()
    _patch_imports(views, NO_MODULES[system])
    io.open = builtins.open = _opener(builtins.open, system)


class View(types.ModuleType):
    """A module without some of its names, and with others in place of some."""

    def __init__(self, module: types.ModuleType, lacking: Any) -> None:
        super().__init__(module.__name__)
        own = object.__getattribute__(self, "__dict__")
        own.update(module=module, lacking=lacking, others={})

    def __getattribute__(self, name: str) -> Any:
        own = object.__getattribute__(self, "__dict__")
        if name == "others":
            return own[name]
        if name in own["lacking"]:
            raise AttributeError(f"there is no {own['module'].__name__}.{name} on this system")
        return own["others"].get(name) or getattr(own["module"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(object.__getattribute__(self, "__dict__")["module"], name, value)


def _fails(error: Exception) -> Callable[..., Any]:
    def fail(*_: Any) -> None:
        raise error

    return fail


def _is_charlm(name: Any) -> bool:
    return str(name).partition(".")[0] == "charlm"


def _caller() -> str:
    """Return the name of the module that called a function of a file."""
    frame: Any = sys._getframe(2)
    while frame.f_back and frame.f_globals["__name__"] in (__name__, "pathlib", "shutil"):
        frame = frame.f_back
    return str(frame.f_globals["__name__"])


def _patch_imports(views: Mapping[str, View], lacking: set[str]) -> None:
    """Import views of modules, and fail to import others, in modules of charlm."""
    usual, by_name = builtins.__import__, importlib.import_module

    def find(name: str, values: Any = None, *rest: Any, **more: Any) -> Any:
        if _is_charlm((values or {}).get("__name__")):
            if name in lacking:
                raise ModuleNotFoundError(f"there is no {name} on this system", name=name)
            if name in views:
                return views[name]
        return usual(name, values, *rest, **more)

    def find_by_name(name: str, package: str | None = None) -> Any:
        if name in lacking and _is_charlm(_caller()):
            raise ModuleNotFoundError(f"there is no {name} on this system", name=name)
        return by_name(name, package)

    builtins.__import__, importlib.import_module = find, find_by_name


def _opener(usual: Callable[..., Any], system: str) -> Callable[..., Any]:
    """Return `open` of a system; that of Windows needs an encoding here, since it has its own."""

    on_windows = system == "windows"

    def opened(file: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
        ours, named = _is_charlm(_caller()), not isinstance(file, int)
        if named and ours and os.fsdecode(file).startswith(LINUX_FILES[system]):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", os.fsdecode(file))
        if on_windows and named and Path(os.fsdecode(file)).is_dir() and "opener" not in more:
            raise PermissionError(errno.EACCES, "Permission denied", os.fsdecode(file))
        if on_windows and named and set("awx") & set(mode):
            _check_name(file)
        if on_windows and ours and "b" not in mode:
            encoding = rest[1] if len(rest) > 1 else more.get("encoding")
            assert encoding not in (None, "locale"), f"{file} is opened without an encoding"
        return usual(file, mode, *rest, **more)

    return opened


def _patch_files() -> None:
    """Refuse what Windows refuses with files that this process has open, and links."""
    usual = {name: getattr(os, name) for name in ("open", "rename", "replace", "unlink", "mkdir")}

    def rename(path: Any, target: Any, **more: Any) -> None:
        _check_unused(path)
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "The file exists", os.fsdecode(target))
        usual["rename"](path, target, **more)

    def replace(path: Any, target: Any, **more: Any) -> None:
        _check_unused(path)
        _check_unused(target)
        usual["replace"](path, target, **more)

    def unlink(path: Any, **more: Any) -> None:
        _check_unused(path)
        usual["unlink"](path, **more)

    def open_(path: Any, *rest: Any, **more: Any) -> int:
        if Path(os.fsdecode(path)).is_dir():
            raise PermissionError(errno.EACCES, "Permission denied", os.fsdecode(path))
        return int(usual["open"](path, *rest, **more))

    def mkdir(path: Any, *rest: Any, **more: Any) -> None:
        _check_name(path)
        usual["mkdir"](path, *rest, **more)

    os.rename, os.replace, os.unlink, os.remove, os.open = rename, replace, unlink, unlink, open_
    os.mkdir = mkdir
    os.symlink = _fails(OSError(errno.EINVAL, "A required privilege is not held by the client"))
    shutil._use_fd_functions = False  # type: ignore[attr-defined]
    shutil._rmtree_impl = shutil._rmtree_unsafe  # type: ignore[attr-defined]  # Python 3.14


def _check_name(path: Any) -> None:
    """Raise OSError for the name of a new file or folder that Windows does not allow."""
    if WRONG_NAME.search(Path(os.fsdecode(path)).name):
        raise OSError(errno.EINVAL, "The name of the file is incorrect", os.fsdecode(path))


def _check_unused(path: Any) -> None:
    """Raise PermissionError for a file that this process has open or maps, or a folder with one.

    filelock deletes its file otherwise on Windows, so it may.
    """
    name = str(Path(os.fsdecode(path)).absolute())
    if _caller().startswith("filelock"):
        return
    for used in _used_files():
        if used == name or used.startswith(f"{name}/"):
            error = PermissionError(errno.EACCES, IN_USE, name)
            error.winerror = 32  # type: ignore[attr-defined]
            raise error


def _used_files() -> list[str]:
    """Return the files that this process has open, and those that it maps."""
    names = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # that of the list itself is closed
            names.append(str(entry.readlink()))
    with _OPEN("/proc/self/maps", encoding="utf-8") as lines:
        return names + [line.split(maxsplit=5)[-1].rstrip("\n") for line in lines if "/" in line]
