"""What a terminal shows: one line of progress, colours, and an end by Ctrl-C."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
from pathlib import Path

import pytest
from invoking import PYTHONPATH, ROOT, command, invoke

CODE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
HERE = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}


class Terminal:
    """A command on a terminal of its own, of a number of columns."""

    def __init__(self, *arguments: object, columns: int = 80, **environment: str) -> None:
        self.screen, inside = pty.openpty()
        fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.settings = termios.tcgetattr(inside)
        self.process = subprocess.Popen(
            command(*arguments), stdin=inside, stdout=inside, stderr=inside, cwd=ROOT,
            env=HERE | PYTHONPATH | {"TERM": "xterm-256color"} | environment,
            start_new_session=True, preexec_fn=self._take,
        )  # fmt: skip
        self.inside = inside
        self.written = ""

    @staticmethod
    def _take() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored where tests run in the background

    def __del__(self) -> None:
        self.process.kill()  # of a test that failed
        self.process.wait()

    def read_until(self, text: str, times: int = 1) -> None:
        """Read what is written, until `text` has come a number of times."""
        while self.written.count(text) < times:
            part = os.read(self.screen, 65536)
            self.written += part.decode()

    def ended(self) -> tuple[str, int]:
        """All that was written, and the exit code; the settings of the terminal are as before."""
        code = self.process.wait()
        assert termios.tcgetattr(self.inside) == self.settings
        os.close(self.inside)
        try:
            while part := os.read(self.screen, 65536):
                self.written += part.decode()
        except OSError:  # all was read
            os.close(self.screen)
        return self.written.replace("\r\n", "\n"), code


def test_ctrl_c_erases_the_line_of_progress(tmp_path: Path) -> None:
    terminal = Terminal("sample", tmp_path / "sample", "--n", 2000, columns=60)
    terminal.read_until(" of 2000 images, ", times=2)
    os.write(terminal.screen, b"\x03")
    written, code = terminal.ended()
    assert code == 130 and "Traceback" not in written
    lines = CODE.sub("", written).replace("^C", "").split("\r")  # the terminal's echo
    assert [line for line in lines if len(line) > 60] == []
    assert next(line for line in lines[-2::-1] if line).isspace() and lines[-1] == "Interrupted.\n"
    assert list(tmp_path.iterdir()) == []


def test_verbose_tells_versions_and_stages(tmp_path: Path) -> None:
    said = invoke("sample", "-v", tmp_path / "sample", "--n", 20).stderr
    assert re.search(r"^\[ *\d+\.\d s\] annotator \d.*, Python 3\..*, numpy \d", said)
    assert f"s] directory: {tmp_path / 'sample'}\n" in said
    assert re.search(r"s\] Drawing: 20 images in \d+\.\d s \(\d+/s\)\n", said)
    assert re.search(r"s\] done; at most [\d,]+ MB of memory\n$", said)


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False), ({"NO_COLOR": ""}, True)],
)
def test_colours(environment: dict[str, str], coloured: bool, tmp_path: Path) -> None:
    written, code = Terminal("stats", tmp_path / "none.csv", **environment).ended()
    assert code == 1 and CODE.sub("", written).startswith("Error: ")
    assert (CODE.search(written) is not None) == coloured


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_help_fits_the_terminal(columns: int) -> None:
    written, code = Terminal("evaluate", "--help", columns=columns).ended()
    text = CODE.sub("", written)
    examples, options = text[text.index("Examples:") :].split("\n\n", 1)
    assert examples.count("annotator evaluate") > 3
    assert code == 0 and max(map(len, options.splitlines())) <= columns
    starts = {line.index(line[line.index("  --") :].split("  ")[2]) for line in
              re.findall(r"^  --\S+  .*", options, re.MULTILINE)}  # fmt: skip
    assert len(starts) == 1


def test_quiet_leaves_results_and_errors(tmp_path: Path) -> None:
    assert invoke("sample", tmp_path / "a", "--n", 20).stderr != ""
    assert invoke("sample", tmp_path / "a", "--n", 20, "-q").stderr == ""
    assert invoke("--quiet", "sample", tmp_path / "a", "--n", 20).stderr == ""
    assert invoke("stats", "-q", tmp_path / "none.csv").stderr.startswith("Error: ")
