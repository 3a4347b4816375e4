"""Commands in the documentation: each block says how it is checked, and names nothing that does not exist."""

import importlib.util
import re
import shlex
import subprocess

import pytest
import typer

from jobs.runner.layout import StageAddress
from jobs.runner.lineage import read_lineage
from orchestration.cli import app
from tests.docs.command_blocks import ROOT, TAGS, CommandBlock, all_blocks

BLOCKS = all_blocks()
SEPARATORS = "|&;<>()\n"


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_block_says_how_it_is_checked(block: CommandBlock) -> None:
    assert len(block.tags) == 1, f"{block}: give the block one tag, such as ```bash fast"
    assert block.tags[0] in TAGS


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_block_is_a_script(block: CommandBlock) -> None:
    read = subprocess.run(["bash", "-n"], input=block.script, capture_output=True, text=True, check=False)
    assert read.returncode == 0, read.stderr


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_what_a_block_calls_exists(block: CommandBlock) -> None:
    for program, *arguments in simple_commands(block):
        command = [program.removeprefix(".venv/bin/"), *arguments]
        match command:
            case ["alto", *words]:
                require_alto(words)
            case ["make", *words]:
                targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
                assert {word for word in words if "=" not in word} <= set(targets), command
            case [("python" | "torchrun" | "deepspeed"), *words] if (name := module_named(words)) is not None:
                assert importlib.util.find_spec(name) is not None, command
            case ["dvc", "repro", *words]:
                known = {str(address) for address in read_lineage(ROOT).addresses}
                stages = {StageAddress.parse(word).stage for word in words if not word.startswith("-")}
                assert stages <= {StageAddress.parse(address).stage for address in known}, command


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_files_that_a_block_names_are_there(block: CommandBlock) -> None:
    for command in simple_commands(block):
        for word in command:
            if word.startswith(("docs/", "infra/", "tests/")):
                assert list(ROOT.glob(word)), f"{block}: {word}"
        if "systemctl" in command:
            units = command[command.index("--now") + 1 :]
            files = [
                ROOT / "infra" / "systemd" / f"{unit.partition('@')[0]}{'@' * ('@' in unit)}.service"
                for unit in units
            ]
            assert [file for file in files if not file.exists()] == []


def simple_commands(block: CommandBlock) -> list[list[str]]:
    """The words of every command of a block; what follows a pipe or a redirection is counted as another one."""
    without_comments = re.sub(r"(?m)(^|\s)#.*$", "", block.script.replace("\\\n", " "))
    lexer = shlex.shlex(without_comments, posix=True, punctuation_chars=SEPARATORS)
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t", True, ""
    commands: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set(SEPARATORS):
            commands.append([])
        else:
            commands[-1].append(word)
    return [command for command in commands if command]


def require_alto(words: list[str]) -> None:
    """The command is there and takes these options."""
    command = typer.main.get_command(app)
    rest = list(words)
    while hasattr(command, "commands") and rest:
        name = rest.pop(0)
        if name == "--help":
            return
        assert name in command.commands, f"alto {' '.join(words)}"
        command = command.commands[name]
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    options = {word.partition("=")[0] for word in rest if word.startswith("--")}
    assert options <= known | {"--help"}, f"alto {' '.join(words)}"


def module_named(words: list[str]) -> str | None:
    for flag in ("-m", "--module"):
        if flag in words:
            name = words[words.index(flag) + 1]
            return None if "<" in name else name
    return None
