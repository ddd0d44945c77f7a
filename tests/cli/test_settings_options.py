"""Options made from settings classes: names, defaults and help of ``vggish-pt train``, and parsing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
import typer
from typer.testing import CliRunner

from vggish_pt.cli.main import app
from vggish_pt.cli.settings_options import OptionGroup, with_options
from vggish_pt.errors import SettingsError

TRAIN = """
--out --weights --fold-from --validation-fold --test-fold --validation-share --skip-unreadable --head --features
--activation --hidden --dropout --hop --pad --resampler --backbone --frozen-blocks --unfreeze-at --backbone-lr-factor
--head-epochs --epochs --batch-size --windows --accumulate --optimizer --optimizer-option --lr --weight-decay --schedule
--schedule-option --clip --swa --early-stopping --metric --keep --class-weights --label-smoothing --random-crop
--no-random-crop --gain --time-shift --noise --noise-share --snr --mixup --spec-augment --seed --device --devices
--precision --workers --cache --checkpoint --resume --overwrite --quiet -q --mask-bands --mask-frames --decoders
"""


def test_train_has_all_options_each_with_help():
    command = typer.main.get_command(app).commands["train"]
    options = [p for p in command.params if p.name not in ("data", "help")]
    assert {name for p in options for name in (*p.opts, *p.secondary_opts)} == set(TRAIN.split())
    for option in options:
        assert option.help and option.help.rstrip().endswith("."), option.name
        assert "``" not in option.help and ":class:" not in option.help, option.name
    defaults = {option.name: option.default for option in options}
    assert (defaults["lr"], defaults["epochs"], defaults["unfreeze_at"], defaults["snr"]) == (
        5e-4,
        20,
        "1,2,3,4,5",
        "5,30",
    )
    assert defaults["random_crop"] is True and defaults["noise"] is None


@dataclass(frozen=True)
class Settings:
    """Settings of a test.

    Attributes:
        rate: Rate of the test; see :class:`Settings`.
        kind: Kind of the test. More about
            kinds.
        pair: Two numbers.
        options: Further options.
        fast: Run fast.
        hidden: No option.
    """

    rate: float = 0.5
    kind: Literal["a", "b"] = "a"
    pair: tuple[float, float] = (1.0, 2.5)
    options: Mapping[str, Any] = field(default_factory=dict)
    fast: bool = True
    hidden: int = 3


GROUP = OptionGroup(
    "Test", Settings, dict.fromkeys(("rate", "kind", "pair", "options", "fast"), ""), {"options": "option"}
)


def run(*arguments: str) -> Any:
    found: list[dict[str, Any]] = []
    application = typer.Typer()

    @application.command()
    @with_options(GROUP)
    def command(name: str, quiet: bool = False, **given: Any) -> None:
        found.append(GROUP.values(given))

    result = CliRunner().invoke(application, ["x", *arguments])
    return found[0] if found else result


def test_defaults_are_those_of_the_class():
    assert Settings(**run()) == Settings()


def test_values_are_parsed_by_the_fields_type():
    values = run(
        "--pair", "3,4", "--option", "a=1", "--option", "b=True", "--option", "c=x", "--no-fast", "--kind", "b"
    )
    assert Settings(**values) == Settings(0.5, "b", (3.0, 4.0), {"a": 1, "b": True, "c": "x"}, False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pair", "3,x"], "--pair must be numbers separated by commas, not '3,x'"),
        (["--option", "a"], "--option must be KEY=VALUE, not 'a'"),
    ],
)
def test_values_that_cannot_be_parsed(arguments, message):
    error = run(*arguments).exception
    assert isinstance(error, SettingsError) and str(error) == message


def test_help_is_the_first_sentence():
    text = run("--help").output
    assert "Rate of the test." in text and "Kind of the test." in text and "More about" not in text
    assert "a|b" in text and "KEY=VALUE" in text and "--hidden" not in text
