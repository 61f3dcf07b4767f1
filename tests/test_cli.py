"""The command line as a user meets it."""

import subprocess
import sys

import pytest

from askwell import __version__, cli


def test_help_names_every_command_and_loads_no_heavy_package():
    code = "import sys, askwell.cli; askwell.cli.main(['--help']); print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert all(f"  {name}" in shown for name in cli.COMMANDS)
    assert not {"torch", "transformers", "sklearn", "numpy", "scipy"} & set(shown.split())


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_lists_its_fields(name, capsys):
    assert cli.main([*name.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--output PATH (required)" in shown
    assert "--seed INT = 0" in shown


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"askwell {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["dance"], "unknown command 'dance'; commands: ingest"),
        (["evaluate"], "unknown command 'evaluate'"),
        (["label", "--input", "absent", "--output", "OUT"], "absent: no such directory; make it with `askwell ingest"),
        (["label", "absent.yaml"], "absent.yaml: no such recipe"),
        (["label", "--input", "x", "--output", "OUT", "--thruth", "acts"], "did you mean 'truth'?"),
        (["ingest", "--source", "chat", "--input", "absent.jsonl", "--output", "OUT"], "absent.jsonl"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, says, capsys, tmp_path):
    assert cli.main([str(tmp_path / "out") if argument == "OUT" else argument for argument in arguments]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("askwell: error: ")
    assert shown.err.count("\n") == 1
    assert says in shown.err


@pytest.mark.parametrize(("missing", "told"), [("torch.nn", True), ("askwell.poetry", False)])
def test_a_package_of_an_extra_that_is_not_there_is_one_line(tmp_path, monkeypatch, capsys, missing, told):
    def absent(name):
        raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)

    monkeypatch.setattr(cli.importlib, "import_module", absent)
    call = ["clinic", "logs", "--output", str(tmp_path / "logs")]
    if told:
        assert cli.main(call) == 2
        assert capsys.readouterr().err == (
            "askwell: error: 'torch' is not installed; it comes with the extra `train`: in a checkout of askwell "
            "`make install`, or `pip install '.[train]'`\n"
        )
    else:  # a mistake of ours, and no extra
        with pytest.raises(ModuleNotFoundError):
            cli.main(call)
