"""Stage artifacts: what an SFT model, rankings or a reward model cost is paid once, by whichever run needs it first.

Each is a folder named by its stage and by a digest of everything that went into it (see `keys`). It is written beside its
place, sealed with the hash of every file, and moved there in one step: what is not whole is not there. A lock that the
operating system drops when its process dies makes parallel runs wait for one another instead of doing the work twice.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from alignbench import distributed
from alignbench.errors import UserError
from alignbench.paths import user_path
from alignbench.results.disk.directory import file_errors, write_whole

MANIFEST = "manifest.json"
FORMAT = 1
"""Of what stages write into their folders: raise it when an older folder can no longer be read."""
_PARTIAL, _BROKEN = ".partial-", ".broken-"
_FAULTY = {_PARTIAL: "unfinished", _BROKEN: "set aside"}
_ADVICE = "choose another folder with cache_dir="
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)

T = TypeVar("T")
Write = Callable[[Path], object]


def cache_root(folder: str) -> Path:
    """`folder`, or where nothing is said $ALIGNBENCH_CACHE/stages, else ~/.cache/alignbench/stages."""
    if folder:
        return user_path(folder, "cache_dir")
    return Path(os.environ.get("ALIGNBENCH_CACHE") or Path.home() / ".cache" / "alignbench") / "stages"


@dataclass(frozen=True)
class Artifact:
    """One folder of a store, for people who list and prune. `fault`: why it will be made again, where it will be."""

    path: Path
    stage: str
    made_by: str
    size: int
    last_used: datetime
    fault: str = ""


@dataclass(frozen=True)
class Store:
    """`run` is written into what is made; `say` tells the user what is waited for, and what was set aside."""

    root: Path
    run: str = ""
    say: Callable[[str], None] = field(default=lambda text: None, repr=False)

    def once(self, stage: str, key: str, make: Callable[[], Write], load: Callable[[Path, str], T]) -> T:
        """What `load(folder, made_by)` reads of this artifact, made where it is not there: `make()` does the work and
        returns what writes it into a folder. `made_by` is the run that made it before; empty if that was now.

        Both ways end in `load`: a run that makes an artifact goes on from the same bytes as one that finds it. Several
        processes of one run all make and load; the main one writes."""
        path = self.root / f"{stage}-{key}"
        with self._locked(path):
            reused = distributed.agreed(lambda: self._is_whole(path))
            if not reused:
                write = make()
                if distributed.is_main():
                    self._write(path, write)
                distributed.wait_for_all()
            elif distributed.is_main():
                # The time of last use, for pruning; the files may be somebody else's.
                with contextlib.suppress(OSError):
                    os.utime(path / MANIFEST)
            return load(path, _made_by(path) if reused else "")

    @contextlib.contextmanager
    def _locked(self, path: Path) -> Iterator[None]:
        if not distributed.is_main():
            yield
            return
        lock = FileLock(f"{path}.lock")
        with file_errors(self.root, _ADVICE):
            try:
                self.root.mkdir(parents=True, exist_ok=True)
                lock.acquire(timeout=0)
            except Timeout:
                self.say(f"  waiting for another run, which is making {path.name}")
                lock.acquire()
            except NotImplementedError as error:
                raise UserError(
                    f"The file system of {self.root} has no locks (flock): {_ADVICE}<a local one>."
                ) from error
            except OSError as error:
                # A cache that only others may write into: what is there can be read. Its owner may prune it meanwhile, whose
                # files are then missing: without a lock nothing holds them.
                if error.errno not in _READ_ONLY or not path.exists():
                    raise
        try:
            yield
        finally:
            lock.release()

    def _is_whole(self, path: Path) -> bool:
        if not path.exists():
            return False
        if not (fault := fault_of(path)):
            return True
        aside = path.with_name(f"{_BROKEN}{path.name}-{datetime.now(UTC):%Y%m%d-%H%M%S-%f}")
        with file_errors(path, _ADVICE):
            path.rename(aside)
        self.say(f"  {path.name}: {fault}; set aside as {aside.name} and made again")
        return False

    def _write(self, path: Path, write: Write) -> None:
        partial = path.with_name(f"{_PARTIAL}{path.name}")
        with file_errors(path, _ADVICE):
            shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed: the lock is ours now
            try:
                partial.mkdir()
                write(partial)
                seal(partial, self.run)
                partial.rename(path)
            finally:
                shutil.rmtree(partial, ignore_errors=True)

    def sweep(self) -> None:
        """Removes what killed runs were in the middle of writing."""
        for partial in self.root.glob(f"{_PARTIAL}*") if self.root.is_dir() else ():
            lock = FileLock(self.root / f"{partial.name.removeprefix(_PARTIAL)}.lock")
            with contextlib.suppress(Timeout, OSError, NotImplementedError):
                lock.acquire(timeout=0)
                shutil.rmtree(partial, ignore_errors=True)
                lock.release()


def seal(folder: Path, run: str) -> None:
    """Writes the manifest: the size and hash of every file. All of it is on the disk when this returns."""
    files = {}
    for path in _files(folder):
        with path.open("rb") as file:
            files[path.relative_to(folder).as_posix()] = {
                "bytes": path.stat().st_size,
                "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
            }
            os.fsync(file.fileno())
    manifest = {"format": FORMAT, "made_by": run, "made": datetime.now(UTC).isoformat(), "files": files}
    write_whole(folder / MANIFEST, json.dumps(manifest, indent=1).encode())


def fault_of(folder: Path) -> str:
    """Why a folder is not what was sealed; empty where it is."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            return f"format {manifest['format']} of another version of alignbench (this one has {FORMAT})"
        sealed = {name: (entry["bytes"], entry["sha256"]) for name, entry in manifest["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"no readable {MANIFEST}"
    if odd := sealed.keys() ^ {path.relative_to(folder).as_posix() for path in _files(folder)}:
        return f"{min(odd)} is missing" if min(odd) in sealed else f"{min(odd)} does not belong to it"
    for name, (size, digest) in sealed.items():
        try:
            with (folder / name).open("rb") as file:
                if os.fstat(file.fileno()).st_size != size or hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    return f"{name} is damaged"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    return ""


def _made_by(folder: Path) -> str:
    try:
        return str(json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["made_by"])
    except (OSError, ValueError, KeyError, TypeError):
        return "?"


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)


def artifacts(root: Path) -> list[Artifact]:
    """Every artifact of a store, what is set aside and what killed runs left included, the longest unused first."""
    found = []
    for path in sorted(root.iterdir()) if root.is_dir() else ():
        if not path.is_dir():
            continue
        prefix = next((prefix for prefix in _FAULTY if path.name.startswith(prefix)), "")
        stage = path.name.removeprefix(prefix).partition("-")[0]
        try:
            used = max(p.stat().st_mtime for p in (path, path / MANIFEST) if p.exists())
            size = sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
        except (OSError, ValueError):  # a run has just moved it into its place, or somebody prunes too
            continue
        found.append(
            Artifact(path, stage, _made_by(path), size, datetime.fromtimestamp(used, UTC), _FAULTY.get(prefix, ""))
        )
    return sorted(found, key=lambda artifact: artifact.last_used)


def remove(artifact: Artifact) -> bool:
    """Deletes an artifact unless a run is making or reading it. Raises UserError where it may not be deleted."""
    lock = FileLock(artifact.path.with_name(f"{artifact.path.name.removeprefix(_PARTIAL)}.lock"))
    with file_errors(artifact.path, "it belongs to somebody else, who can prune it"):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        try:
            # Renamed first: one that is deleted halfway would look damaged.
            gone = artifact.path.with_name(f"{_PARTIAL}{artifact.path.name.removeprefix(_PARTIAL)}")
            artifact.path.rename(gone)
            shutil.rmtree(gone)
            return True
        except FileNotFoundError:  # somebody else prunes too
            return False
        finally:
            lock.release()
