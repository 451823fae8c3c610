"""Parses the Dockerfile, as far as the tests need it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Instruction:
    """One instruction, such as `COPY`."""

    name: str
    options: dict[str, str]  # --chmod=0555
    value: str

    def command(self) -> list[str]:
        """Program and arguments of the exec form (the image has no shell for the shell form)."""
        command = json.loads(self.value)
        assert isinstance(command, list), self
        assert all(isinstance(part, str) for part in command), self
        return command


@dataclass(frozen=True)
class BuildStage:
    """A stage of the build: everything from a `FROM` to the next one."""

    base: str
    name: str
    instructions: list[Instruction]

    def all(self, name: str) -> list[Instruction]:
        return [instruction for instruction in self.instructions if instruction.name == name]

    def only(self, name: str) -> Instruction:
        [instruction] = self.all(name)
        return instruction


def read(path: Path) -> list[BuildStage]:
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    stages: list[BuildStage] = []
    for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        if not line.strip():
            continue
        name, rest = line.split(maxsplit=1)
        options: dict[str, str] = {}
        while option := re.match(r"--([a-z-]+)=(\S+)\s+", rest):
            options[option[1]] = option[2]  # the last one counts if an option is repeated
            rest = rest[option.end():]
        if name == "FROM":
            base, _, stage = rest.partition(" AS ")
            stages.append(BuildStage(base.strip(), stage.strip(), []))
        elif stages:
            stages[-1].instructions.append(Instruction(name, options, rest.strip()))
    return stages
