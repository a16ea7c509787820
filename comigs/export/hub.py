"""To a repository on the hub: private, unless it is asked for otherwise."""

import re
from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import RepositoryNotFoundError

from comigs.errors import BadInput, ComigsError, one_line

REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def check_push(repo: str, public: bool) -> None:
    """Refuse, before any work, what could not be pushed.

    Raises:
        BadInput: the name is none, there is no token, or everybody can see the repository.
    """
    if not REPOSITORY.fullmatch(repo):
        raise BadInput(f"--push is {repo!r}; give a repository as OWNER/NAME")
    if not get_token():
        raise BadInput("--push needs a token of the hub: set HF_TOKEN, or hf auth login")
    try:
        seen = not HfApi().repo_info(repo).private
    except RepositoryNotFoundError:
        return
    except Exception as error:  # of whatever kind: it is about the hub or the way there
        raise BadInput(f"--push {repo}: {one_line(error)[:300]}") from error
    if seen and not public:
        raise BadInput(f"--push {repo}: it is there and public; add --public, or give another")


def push_folder(folder: Path, repo: str, public: bool) -> str:
    """Upload a folder, and return the repository's address.

    Raises:
        ComigsError: the hub did not take it; the folder stays.
    """
    api = HfApi()
    try:
        made = api.create_repo(repo, private=not public, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Exported by comigs")
    except Exception as error:  # as above
        raise ComigsError(f"--push {repo}: {one_line(error)[:300]}; {folder} stays") from error
    return str(made)
