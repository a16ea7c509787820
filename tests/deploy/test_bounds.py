"""Numbers and certificates that cannot be, in one line."""

import pytest

from comigs.deploy.check import problems
from comigs.deploy.project import init_project
from comigs.errors import BadInput


@pytest.mark.parametrize(
    ("clients", "days", "key"),
    [
        (10**40, 365, "--clients"),
        (0, 365, "--clients"),
        (2, 99_999_999, "--days"),
        (2, 0, "--days"),
    ],
)
def test_numbers_that_cannot_be_are_refused(tmp_path, clients, days, key):
    with pytest.raises(BadInput, match=f"^{key} is"):
        init_project(tmp_path / "new", clients, None, "multilingual", days, 8000)
    assert not (tmp_path / "new").exists()


def test_a_damaged_certificate_is_a_line_of_the_check(tmp_path):
    init_project(tmp_path / "new", 2, None, "multilingual", 30, 8000)
    for name in ("ca/ca.crt", "server/keys/server.crt"):
        (tmp_path / "new" / name).write_text("junk")
    assert sum("is damaged" in line for line in problems(tmp_path / "new")) == 2
