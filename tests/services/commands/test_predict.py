"""`duet predict` against a real server: files, folders, and everything that can be wrong with them."""

from __future__ import annotations

import json
import shutil
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from sklearn.datasets import load_digits
from typer.testing import CliRunner, Result

from services.commands.predict import predict
from tests.conftest import Serve

pytestmark = pytest.mark.server

app = typer.Typer()
app.command()(predict)


def duet_predict(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "300"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """A folder with a picture of every digit, and one of them a folder deeper."""
    folder = tmp_path / "digits"
    (folder / "more").mkdir(parents=True)
    data = load_digits()
    for digit in range(10):
        pixels = (data.images[list(data.target).index(digit)] * 255 / 16).astype(np.uint8)
        file = folder / ("more" if digit == 9 else "") / f"{digit}.{'jpeg' if digit == 8 else 'png'}"
        Image.fromarray(pixels).save(file)
    (folder / "notes.txt").write_text("no image")
    return folder


def test_a_folder_is_classified_file_by_file(allinone_url: str, digits: Path) -> None:
    result = duet_predict(digits, "--url", allinone_url, "--json")
    assert result.exit_code == 0
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [Path(answer["file"]).stem for answer in answers] == [str(digit) for digit in range(10)]
    # The model is right on 97 % or more of images that it never saw, and may have seen these.
    assert sum(Path(answer["file"]).stem == answer["label"] for answer in answers) >= 9


def test_a_file_gets_a_line_in_a_table(allinone_url: str, digits: Path) -> None:
    result = duet_predict(digits / "0.png", "--url", f"{allinone_url}/")
    assert result.exit_code == 0
    [line] = [line for line in result.stdout.splitlines() if "0.png" in line]
    assert float(line.split()[-2]) > 0.5


def test_scores_have_a_verdict(allinone_url: str, digits: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    result = duet_predict(digits / "0.png", tmp_path / "noise.png", "--task", "score", "--url", allinone_url)
    assert result.exit_code == 0
    [noise_line] = [line for line in result.stdout.splitlines() if "noise.png" in line]
    assert "anomalous" in noise_line


def test_more_files_than_one_request_takes_are_asked_for_in_turn(
    allinone_url: str, digits: Path, tmp_path: Path
) -> None:
    for i in range(70):
        shutil.copy(digits / "0.png", tmp_path / f"{i:02}.png")
    shutil.rmtree(digits)
    result = duet_predict(tmp_path, "--url", allinone_url, "--json")
    assert [Path(json.loads(line)["file"]).name for line in result.stdout.splitlines()] == [
        f"{i:02}.png" for i in range(70)
    ]


def test_a_file_name_with_brackets_is_printed_as_it_is(allinone_url: str, digits: Path) -> None:
    odd = digits / "[bold]" / "b].png"
    odd.parent.mkdir()
    shutil.copy(digits / "0.png", odd)
    assert "[bold]/b].png" in duet_predict(odd, "--url", allinone_url).stdout
    odd.write_text("no image")
    result = duet_predict(odd, "--url", allinone_url)
    assert result.exit_code == 1


def test_a_file_that_is_no_image_is_named_with_the_servers_reason(allinone_url: str, digits: Path) -> None:
    result = duet_predict(digits / "0.png", digits / "notes.txt", "--url", allinone_url)
    assert result.exit_code == 1
    [line] = result.stderr.splitlines()
    assert line.startswith(f"error: {digits / 'notes.txt'} ")
    assert "PNG" in line
    assert "images[" not in line


def test_what_is_no_picture_in_a_folder_is_passed_over(allinone_url: str, tmp_path: Path) -> None:
    """Hidden files (macOS writes `._x.png`), hidden folders, and a folder with the name of a picture."""
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "._a.png").write_bytes(b"no image")
    for folder in (".thumbnails", "photo0.png"):
        (tmp_path / folder).mkdir()
    (tmp_path / ".thumbnails" / "b.png").write_bytes(b"no image")
    Image.new("L", (8, 8)).save(tmp_path / "photo0.png" / "c.png")
    result = duet_predict(tmp_path, "--url", allinone_url, "--json")
    assert result.exit_code == 0, result.stderr
    asked = [Path(json.loads(line)["file"]) for line in result.stdout.splitlines()]
    assert asked == [tmp_path / "a.png", tmp_path / "photo0.png" / "c.png"]
    assert not result.stderr


def test_a_folder_is_searched_as_it_is_for_training(allinone_url: str, tmp_path: Path) -> None:
    """Links are followed, and what file servers put there is told and not asked about."""
    for folder in ("linked", "asked/@eaDir/a.png"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("linked/b.png", "asked/a.png", "asked/@eaDir/a.png/thumbnail.jpg"):
        Image.new("L", (8, 8)).save(tmp_path / file)
    (tmp_path / "asked" / "more").symlink_to(tmp_path / "linked")
    (tmp_path / "linked" / "again").symlink_to(tmp_path / "asked")
    result = duet_predict(tmp_path / "asked", "--url", allinone_url, "--json")
    assert result.exit_code == 0, result.stderr
    asked = [Path(json.loads(line)["file"]) for line in result.stdout.splitlines()]
    assert asked == [tmp_path / "asked" / "a.png", tmp_path / "asked" / "more" / "b.png"]
    assert result.stderr.splitlines() == [
        f"{tmp_path / 'asked'}: skipped 1 folders of a system or file server, such as @eaDir",
        f"{tmp_path / 'asked'}: skipped 1 links to folders that are read already, such as more/again",
    ]


def test_a_folder_below_a_hidden_one_is_read(allinone_url: str, tmp_path: Path) -> None:
    folder = tmp_path / ".cache" / "pictures"
    folder.mkdir(parents=True)
    Image.new("L", (8, 8)).save(folder / "a.png")
    assert duet_predict(folder, "--url", allinone_url).exit_code == 0


def test_a_link_to_nothing_is_skipped_and_named(allinone_url: str, tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "gone.png")
    result = duet_predict(tmp_path, "--url", allinone_url, "--json")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 1
    assert result.stderr == f"skipped {tmp_path / 'b.png'}: it is no file, or a link to none\n"


def test_a_broken_file_in_a_folder_is_named(allinone_url: str, digits: Path) -> None:
    (digits / "more" / "9.png").write_bytes((digits / "more" / "9.png").read_bytes()[:50])
    result = duet_predict(digits, "--url", allinone_url)
    assert result.exit_code == 1
    [line] = result.stderr.splitlines()
    assert line.startswith(f"error: {digits / 'more' / '9.png'} ")


def test_files_too_large_for_one_request_are_sent_in_several(serve: Serve, tmp_path: Path) -> None:
    for i in range(5):
        Image.new("L", (100, 100)).save(tmp_path / f"{i}.png")
    with serve("classification", DUET_IMAGE_PIXELS="20000") as server:
        result = duet_predict(tmp_path, "--url", server.url, "--json")
        assert result.exit_code == 0, result.stderr
        names = [Path(json.loads(line)["file"]).name for line in result.stdout.splitlines()]
        assert names == [f"{i}.png" for i in range(5)]
        Image.new("L", (200, 200)).save(tmp_path / "large.png")
        result = duet_predict(tmp_path / "large.png", "--url", server.url)
        assert result.exit_code == 1
        assert "413" in result.stderr or "large.png" in result.stderr


@pytest.mark.parametrize(
    "answer", [b"<html>", b"[]", b"{}", b'{"predictions": []}', b'{"predictions": [{}, {}]}', b"3"]
)
def test_an_answer_that_is_not_duets_is_named(answer: bytes, digits: Path) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as other:
        threading.Thread(target=other.handle_request).start()
        result = duet_predict(digits / "0.png", "--url", f"http://127.0.0.1:{other.server_port}")
    assert result.exit_code == 1
    assert "the answer is not one of Duet" in result.stderr


def test_an_unknown_model_is_named(allinone_url: str, digits: Path) -> None:
    result = duet_predict(digits / "0.png", "--model", "[/other]", "--url", allinone_url)
    assert result.exit_code == 1
    assert "404" in result.stderr
    assert "[/other]" in result.stderr


def test_a_named_model_answers(allinone_url: str, digits: Path) -> None:
    assert duet_predict(digits / "0.png", "--model", "digits-cnn", "--url", allinone_url).exit_code == 0


def test_without_a_server_it_says_how_to_start_one(digits: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else can answer there
        result = duet_predict(digits / "0.png", "--url", f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert result.exit_code == 1
    assert "start the service with `duet serve`, or give its address" in result.stderr


@pytest.mark.parametrize("url", ["localhost", "http://[::1", "http://a b", ""])
def test_a_url_that_is_none_is_an_error(digits: Path, url: str) -> None:
    result = duet_predict(digits / "0.png", "--url", url)
    assert result.exit_code == 1
    assert "error: " in result.stderr


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    result = duet_predict(tmp_path)
    assert result.exit_code == 2
    assert "no PNG or JPEG file" in result.stderr


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert duet_predict(tmp_path / "nothing.png").exit_code == 2
