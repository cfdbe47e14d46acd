"""The one error that is meant for the user: a line that says what is wrong and how to fix it."""

from __future__ import annotations

import difflib
import errno
import os
from collections.abc import Iterable
from pathlib import Path

BAD_INPUT = 2
MISSING = 3
GUARD = 4
UNDECIDED = 5
TERMINATED = 75
INTERRUPTED = 130


class CurioError(Exception):
    """Bad input, a missing service, or a guard rail: printed as one line, without a traceback.

    Args:
        what: what is wrong, with the offending value and what is legal.
        fix: the next step, as an imperative.
        exit_code: `BAD_INPUT` (2), `MISSING` dependency or service (3), `GUARD` rail or full disk (4).
    """

    def __init__(self, what: str, fix: str = "", exit_code: int = BAD_INPUT) -> None:
        self.what = what
        self.fix = fix
        self.exit_code = exit_code
        super().__init__(f"{what}. {fix}" if fix else what)


def nearest(name: str, legal: Iterable[str]) -> str:
    """Return `did you mean 'X'?` for the closest legal name, or the list of legal names when none is close."""
    names = sorted(legal)
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean '{close[0]}'?" if close else f"legal: {', '.join(names)}"


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EACCES, errno.EEXIST, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)


def file_trouble(error: BaseException, written: Path | None = None) -> CurioError | None:
    """The line for a full disk (exit code 4), a path that cannot be used or deep nesting (2); None for other errors.

    Args:
        error: what was raised. Libraries in Rust and C++ report a full disk by its text alone.
        written: the file or folder that was being written, if known.
    """
    if isinstance(error, RecursionError):
        return CurioError("a file or a setting is nested too deeply", "Correct the one that was read last.")
    number = error.errno if isinstance(error, OSError) else None
    where = str(written or getattr(error, "filename", None) or "a file")[:300]
    for code in FULL:
        if code == number or os.strerror(code) in str(error):
            return CurioError(
                f"cannot write {where}: the disk is full ({os.strerror(code)})",
                "Free some space, then run the same command again.",
                GUARD,
            )
    if number in FORBIDDEN:
        verb = "write" if written else "use"
        return CurioError(f"cannot {verb} {where}: {os.strerror(number)}", "Check the path and its permissions.")
    return None


REFUSALS = {
    "GatedRepoError": "is gated",
    "RepositoryNotFoundError": "is private or does not exist",
    "DatasetNotFoundError": "is gated, is private or does not exist",
}
"""What the hub's errors say, by the name of the class: the hub's libraries are not loaded for it."""


def hub_refusal(error: BaseException | None, name: str) -> CurioError | None:
    """The line for a repository that this account may not read, or for a hub that does not answer; else None."""
    while error is not None:
        if (said := REFUSALS.get(type(error).__name__)) is not None:
            from huggingface_hub import get_token

            token = "the account of HF_TOKEN may not read it" if get_token() else "HF_TOKEN is not set"
            return CurioError(
                f"{name} {said} on the hub, and {token}",
                f"Check the name; accept its conditions at https://huggingface.co/{name} where it has some; then set "
                "HF_TOKEN to a token of that account.",
                MISSING,
            )
        error = error.__cause__ or error.__context__
    from curiosft_cli.run.hub import OFFLINE, use_hub

    if Path(name).exists() or (reason := use_hub()) is None:
        return None
    return CurioError(
        f"cannot get {name} from the hub: {reason}, and it is not in the local cache",
        f"Check the network; or name a local folder or file; or fill the cache elsewhere and set {OFFLINE}=1.",
        MISSING,
    )
