"""`curiosft model push CHECKPOINT --to OWNER/NAME`: a checkpoint and its model card to the Hugging Face hub.

Without `--upload` nothing is sent: the command shows what would be.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from curiosft_cli.run.digests import STATE, check_digests
from curiosft_cli.run.errors import MISSING, CurioError, hub_refusal
from curiosft_cli.run.files import COMPLETE
from curiosft_cli.run.hub import OFFLINE
from curiosft_cli.run.rundir import TRAINER_STATE, TRAINING_STAGES, resolve_checkpoint
from curiosft_cli.run.sections import Config
from curiosft_cli.tools.model.card import README, model_card

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
NOT_SENT = (COMPLETE, TRAINER_STATE, README)
"""Of the run, or replaced by the card; and the folder `state`, which only resuming needs."""


@dataclass(frozen=True)
class Shipment:
    """What is sent.

    Attributes:
        repository: OWNER/NAME.
        files: name in the repository -> file.
        card: text of its README.md.
    """

    repository: str
    files: dict[str, Path]
    card: str

    def as_text(self, *, public: bool) -> str:
        """The files with their sizes, and the card."""
        sizes = {name: file.stat().st_size for name, file in self.files.items()}
        lines = [f"{size / 2**20:10.1f} MiB  {name}" for name, size in sizes.items()]
        lines.append(f"{sum(sizes.values()) / 2**20:10.1f} MiB  together, and this {README}:")
        return "\n".join(
            [f"{self.repository} ({'public' if public else 'private, if it is new'}):", *lines, "", self.card]
        )


def prepare_shipment(reference: str, repository: str, config: Config) -> Shipment:
    """Find the checkpoint, check its files against their digests, and write its card.

    Raises:
        CurioError: there is no such checkpoint, a file was changed, or the repository's name is not legal.
    """
    if not REPOSITORY.fullmatch(repository):
        raise CurioError(f"--to {repository} is not the name of a repository", "Write OWNER/NAME.")
    folder = Path(resolve_checkpoint(reference, config))
    if folder.parent.name not in TRAINING_STAGES or not (folder / COMPLETE).is_file():
        raise CurioError(
            f"'{reference}' is not a checkpoint of a run", "Name one: RUN:sft, RUN:rl@best, or its folder in the run."
        )
    check_digests(folder)
    files = {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if file.is_file()}
    sent = {name: file for name, file in files.items() if name not in NOT_SENT and not name.startswith(f"{STATE}/")}
    return Shipment(repository, sent, model_card(folder, repository))


def upload(shipment: Shipment, *, public: bool) -> str:
    """Make the repository if it does not exist, send everything in one commit, and return its address.

    Raises:
        CurioError: exit code 3 when the hub cannot be reached or refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    if (unreachable := hub_refusal(None, shipment.repository)) is not None:
        raise unreachable
    operations = [CommitOperationAdd(name, str(file)) for name, file in shipment.files.items()]
    operations.append(CommitOperationAdd(README, shipment.card.encode()))
    api = HfApi()
    try:
        api.create_repo(shipment.repository, private=not public, exist_ok=True)
        commit = api.create_commit(shipment.repository, operations, commit_message="Upload by curiosft model push")
    except OfflineModeIsEnabled:
        raise CurioError(f"{OFFLINE} is set, so nothing can be sent", f"Unset {OFFLINE}.", MISSING) from None
    except (HfHubHTTPError, LocalTokenNotFoundError) as error:
        raise CurioError(
            f"the hub refused {shipment.repository}: {str(error).splitlines()[0]}",
            "Set HF_TOKEN to a token that may write there, or use `hf auth login`.",
            MISSING,
        ) from None
    return str(commit.commit_url)
