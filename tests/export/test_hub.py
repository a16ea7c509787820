"""To the hub: with a token, to a private repository, and never by mistake to a public one."""

from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError
from typer.testing import CliRunner

from comigs.cli.commands import app
from comigs.export import hub

pytest_plugins = ("tests.fixtures",)


class Hub(HfApi):
    """A hub that notes what it is asked."""

    calls: list = []  # noqa: RUF012
    private: bool | None = None  # of the repository; None: there is none

    def repo_info(self, repo, **how):
        if self.private is None:
            response = SimpleNamespace(headers={}, request=None, status_code=404)
            raise RepositoryNotFoundError("none", response=response)
        return SimpleNamespace(private=self.private)

    def create_repo(self, repo, **how):
        self.calls.append(("create", repo, how["private"]))
        return f"https://hub/{repo}"

    def upload_folder(self, *, repo_id, folder_path, **how):
        names = sorted(path.name for path in folder_path.iterdir())
        self.calls.append(("upload", repo_id, names))


@pytest.fixture
def push(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "HfApi", Hub)
    monkeypatch.setattr(hub, "get_token", lambda: "hf_x")
    monkeypatch.setattr(Hub, "calls", [])

    def call(*options, private=None):
        monkeypatch.setattr(Hub, "private", private)
        command = ["export", str(finished), "--to", str(tmp_path / "to"), "--push", *options]
        return CliRunner().invoke(app, command)

    return call


def test_a_new_repository_is_private(push):
    result = push("me/mine")
    assert result.exit_code == 0, result.output
    assert "pushed to https://hub/me/mine" in result.output
    (created, uploaded) = Hub.calls
    assert created == ("create", "me/mine", True)
    assert {"README.md", "generalist_0"} <= set(uploaded[2])


def test_public_is_asked_for(push):
    assert push("me/mine", "--public").exit_code == 0
    assert Hub.calls[0] == ("create", "me/mine", False)


@pytest.mark.parametrize(
    ("repo", "private", "words"),
    [("mine", None, "OWNER/NAME"), ("me/mine", False, "it is there and public; add --public")],
)
def test_what_is_no_place_for_it_is_refused_before_any_work(push, tmp_path, repo, private, words):
    result = push(repo, private=private)
    assert result.exit_code == 2 and words in result.output
    assert Hub.calls == [] and not (tmp_path / "to").exists()


def test_without_a_token_it_is_one_line(push, tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "get_token", lambda: None)
    result = push("me/mine")
    assert result.exit_code == 2 and "set HF_TOKEN, or hf auth login" in result.output
    assert not (tmp_path / "to").exists()


def test_a_hub_that_fails_leaves_the_folder(push, tmp_path, monkeypatch):
    def fail(*args, **how):
        raise ConnectionError("no way there")

    monkeypatch.setattr(Hub, "create_repo", fail)
    result = push("me/mine")
    assert result.exit_code == 1 and "no way there" in result.output
    assert (tmp_path / "to" / "README.md").is_file()
