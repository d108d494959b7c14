"""Captioners that ask a server: what is sent of a picture, what a recipe makes of answers, what becomes of failures."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clipkit.errors import ClipkitError, RecordError, UsageError
from clipkit.methods.captioners.base import Request, Written
from clipkit.methods.captioners.rewrite import Rewrite
from clipkit.methods.captioners.served import Served
from clipkit.methods.captioners.vlm import Vlm, data_url
from clipkit.stream.captions import ORIGINAL, Caption
from tests.chat.server import Server, serving

SAYS_AGAIN = 'name = "again"\nabout = "says it again"\nmethod = "rewrite"\nprompt = "{text}"\n'
HQ_CLIP = {
    "description": "A grey cat sits on a mat.",
    "tags": ["cat", "mat"],
    "false_description": "A red dog sits on a car.",
    "false_tags": ["dog"],
}


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as some:
        yield some


@pytest.fixture
def again(tmp_path: Path) -> str:
    """A recipe that asks for the text itself."""
    (tmp_path / "again.toml").write_text(SAYS_AGAIN)
    return str(tmp_path / "again.toml")


def written(captioner: Served, *requests: Request) -> list[Written | RecordError]:
    captioner.setup(None, "cpu")
    try:
        return captioner.finish([captioner.begin(request) for request in requests])
    finally:
        captioner.close()


def options(server: Server, name: str, **more: Any) -> dict[str, Any]:
    return {"server": server.address(name), "retries": 0, **more}


def about(text: str, name: str = "a", **more: Any) -> Request:
    return Request(name, [Caption(text, ORIGINAL)], **more)


def picture(size: tuple[int, int] = (40, 30), format: str = "PNG", **more: Any) -> bytes:
    buffer = io.BytesIO()
    ramp = np.linspace(0, 255, size[0] * size[1]).reshape(size[1], size[0]).astype("u1")
    Image.merge(
        "RGB", [Image.fromarray(ramp), Image.fromarray(ramp.T.reshape(ramp.shape)), Image.fromarray(255 - ramp)]
    ).save(buffer, format, **more)
    return buffer.getvalue()


def sent(url: str) -> Image.Image:
    """The picture in a data URL."""
    kind, _, data = url.partition(";base64,")
    assert kind == "data:image/jpeg"
    image = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
    assert image.format == "JPEG" and image.mode == "RGB"
    return image


# What is sent of a picture


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((40, 30), (40, 30)),
        ((200, 100), (100, 50)),
        ((100, 200), (50, 100)),
        ((1000, 1), (100, 1)),
        ((100, 9), (100, 9)),
    ],
)
def test_the_longer_side_has_so_many_pixels_at_most(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert sent(data_url(picture(size), 100)).size == expected


@pytest.mark.parametrize("turned", [1, 3, 6, 8])
def test_a_picture_is_sent_upright(turned: int) -> None:
    """EXIF 6: the row that is stored first is the right side."""
    stored = Image.new("RGB", (64, 32), "white")
    stored.paste((255, 0, 0), (0, 0, 32, 16))  # the upper left quarter
    exif = Image.Exif()
    exif[0x0112] = turned
    buffer = io.BytesIO()
    stored.save(buffer, "JPEG", exif=exif, quality=95)
    seen = np.asarray(sent(data_url(buffer.getvalue(), 768)), int)
    height, width = seen.shape[:2]
    assert (width, height) == ((64, 32) if turned in (1, 3) else (32, 64))
    corners = {
        "upper left": seen[4, 4],
        "upper right": seen[4, width - 5],
        "lower right": seen[height - 5, width - 5],
        "lower left": seen[height - 5, 4],
    }
    red = [name for name, (r, g, b) in corners.items() if r - g > 100 and r - b > 100]
    assert red == [{1: "upper left", 3: "lower right", 6: "upper right", 8: "lower left"}[turned]]


def test_nothing_that_a_file_carries_is_sent() -> None:
    exif = Image.Exif()
    exif[0x010E], exif[0x9286] = "taken at home", "51.5007 N, 0.1246 W"
    data = picture(format="JPEG", exif=exif, icc_profile=b"profile of mine" * 20, comment=b"a remark", quality=95)
    data += b"behind the picture"
    for secret in (b"taken at home", b"profile of mine", b"a remark", b"behind the picture"):
        assert secret in data
    image = sent(data_url(data, 768))
    assert not image.getexif() and not {"icc_profile", "comment", "exif"} & set(image.info)
    made = base64.b64decode(data_url(data, 768).partition(",")[2])
    assert not [secret for secret in (b"home", b"profile", b"remark", b"behind") if secret in made]


def test_what_is_transparent_is_white() -> None:
    buffer = io.BytesIO()
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(buffer, "PNG")
    assert np.asarray(sent(data_url(buffer.getvalue(), 768))).min() > 250


def test_a_large_jpeg_is_sent_as_a_plain_resize_would_have_it() -> None:
    """It is decoded at reduced scale: to the eye there is no difference."""
    x, y = np.meshgrid(np.linspace(0, 6, 1203), np.linspace(0, 4, 805))
    waves = [(np.sin(x * k + y) * 100 + 128).astype("u1") for k in (1, 2, 3)]
    buffer = io.BytesIO()
    whole = Image.merge("RGB", [Image.fromarray(wave) for wave in waves])
    whole.save(buffer, "JPEG", quality=95)
    ours = sent(data_url(buffer.getvalue(), 100))
    plain = whole.resize((100, 67), Image.Resampling.BICUBIC)
    assert ours.size == plain.size
    assert np.abs(np.asarray(ours, float) - np.asarray(plain, float)).mean() < 3


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "image-empty"),
        (b"no picture", "image-format"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "image-broken"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x0f\x42\x40\x00\x0f\x42\x40\x08\x02\x00\x00\x00", "image-"),
    ],
)
def test_what_is_no_sound_picture_is_not_sent(server: Server, data: bytes, kind: str) -> None:
    captioner = Vlm(options=options(server, "fine", server_model="tiny"))
    captioner.setup(None, "cpu")
    with pytest.raises(RecordError) as caught:
        captioner.begin(about("a cat", data=lambda: data))
    captioner.close()
    assert caught.value.kind.startswith(kind) and not server.requests


# What is asked, and what comes of it


def test_a_picture_and_the_recipes_text_are_sent(server: Server) -> None:
    (one,) = written(Vlm(options=options(server, "fine"), max_side=20), about("a cat", data=picture))
    (request,) = [request for request in server.requests if request.method == "POST"]
    image, text = request.body["messages"][-1]["content"]
    assert sent(image["image_url"]["url"]).size == (20, 15)
    assert "caption" in text["text"] and request.body["temperature"] == 0
    assert isinstance(one, Written)
    (caption,) = one.captions
    assert (caption.source, caption.model, caption.seed) == ("describe", "tiny", request.body["seed"])


def test_each_variant_is_a_request_with_a_seed_and_examples_of_its_own(server: Server) -> None:
    captioner = Rewrite(options=options(server, "fine"), variants=5, temperature=0.5, max_tokens=9)
    captioner.setup(None, "cpu")
    captioner.finish([captioner.begin(about("a cat"))])
    captioner.close()
    bodies = [request.body for request in server.requests if request.method == "POST"]
    assert len(bodies) == 5 == len({body["seed"] for body in bodies})
    assert len({body["messages"][-1]["content"] for body in bodies}) > 1
    assert {(body["temperature"], body["top_p"], body["max_tokens"]) for body in bodies} == {(0.5, 0.95, 9)}
    assert captioner.decides["recipe"]["variants"] == 5


def test_what_is_sent_hangs_on_the_record_and_the_seed_alone(server: Server) -> None:
    def bodies(*names: str, seed: int = 0) -> dict[str, list[str]]:
        before = len(server.requests)
        some = [about(f"caption {name}", name) for name in names]
        written(Rewrite(options=options(server, "fine", server_model="tiny"), seed=seed), *some)
        made = [json.dumps(request.body) for request in server.requests[before:]]
        return {name: sorted(body for body in made if f"caption {name}" in body) for name in names}

    together = bodies("a", "b")
    assert bodies("b")["b"] == together["b"] and len(together["b"]) == 4
    assert bodies("b", seed=1)["b"] != together["b"]


@pytest.mark.parametrize(
    "around", ["{}", "```json\n{}\n```", "```\n{}\n```\nI hope this helps!", "{}\n\nLet me know.", "```json {}```"]
)
def test_json_is_read_out_of_fences_and_before_what_follows(server: Server, tmp_path: Path, around: str) -> None:
    recipe = tmp_path / "hq.toml"
    recipe.write_text(hq_of_text())
    answer = around.replace("{}", json.dumps(HQ_CLIP))
    (one,) = written(Rewrite(options=options(server, "says_json", recipe=str(recipe))), about_answer(answer))
    assert isinstance(one, Written)
    assert [(caption.text, caption.source, caption.negative) for caption in one.captions] == [
        ("A grey cat sits on a mat.", "hq/long", False),
        ("cat, mat", "hq/tags", False),
        ("A red dog sits on a car.", "hq/negative-long", True),
        ("dog", "hq/negative-tags", True),
    ]


@pytest.mark.parametrize("answer", ["no JSON", "Here you are: {}", '{"description": "half', '{"description": 5}', "{}"])
def test_other_json_is_the_records_error(server: Server, tmp_path: Path, answer: str) -> None:
    recipe = tmp_path / "hq.toml"
    recipe.write_text(hq_of_text())
    (error,) = written(Rewrite(options=options(server, "says_json", recipe=str(recipe))), about_answer(answer))
    assert isinstance(error, RecordError) and error.kind == "bad-answer"


def test_a_record_fails_where_no_variant_answers(server: Server, again: str) -> None:
    captioner = Rewrite(options=options(server, "status/500", recipe=again, server_model="tiny"), variants=3)
    (error,) = written(captioner, about("a"))
    assert isinstance(error, RecordError) and error.kind == "chat-status-500"


def test_a_record_keeps_the_variants_that_answered(server: Server, tmp_path: Path) -> None:
    """Of ten requests, those fail whose example ends in an odd digit."""
    examples = "".join(f'[[examples]]\nbefore = "x{n}"\nafter = "y{n}"\n' for n in range(10))
    recipe = tmp_path / "odd.toml"
    recipe.write_text(
        'name = "odd"\nabout = "a"\nmethod = "rewrite"\nprompt = "{text} {examples}"\nvariants = 10\nshots = 1\n'
        + examples
    )
    captioner = Rewrite(options=options(server, "odd_fails", recipe=str(recipe)))
    (one,) = written(captioner, about("a"))
    asked = [request.asked for request in server.requests if request.method == "POST"]
    failed = sum(text[-1] in "13579" for text in asked)
    assert isinstance(one, Written) and 0 < failed < 10 and len(one.captions) == 10 - failed
    assert captioner.facts["unused_variants"] == failed
    assert captioner.notices[-1].startswith(f"{failed} variants")


def test_a_missing_field_sends_nothing(server: Server) -> None:
    captioner = Rewrite(options=options(server, "fine", recipe="veclip", server_model="tiny"))
    captioner.setup(None, "cpu")
    with pytest.raises(RecordError, match="generated"):
        captioner.begin(about("a"))
    captioner.close()
    assert not server.requests


# Ways to be refused


def test_a_recipe_of_the_other_method_is_refused(server: Server) -> None:
    with pytest.raises(UsageError, match="asks without a picture"):
        Vlm(options=options(server, "fine", recipe="laclip")).setup(None, "cpu")
    with pytest.raises(UsageError, match="asks with a picture"):
        Rewrite(options=options(server, "fine", recipe="hq-clip")).setup(None, "cpu")


@pytest.mark.parametrize("setting", [{"temperature": 9.0}, {"top_p": 0.0}, {"variants": 10_000}])
def test_a_setting_out_of_bounds_is_refused(server: Server, setting: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="--set"):
        Rewrite(options=options(server, "fine"), **setting).setup(None, "cpu")


def test_without_a_server_nothing_is_done() -> None:
    captioner = Rewrite()
    with pytest.raises(UsageError, match="no server"):
        captioner.setup(None, "cpu")
    captioner.stop()
    captioner.close()
    assert not captioner.notices and not captioner.facts


def test_what_ends_a_run_is_raised(server: Server) -> None:
    with pytest.raises(ClipkitError, match="wants a key"):
        written(Rewrite(options=options(server, "status/401", server_model="tiny")), about("a"))


def hq_of_text() -> str:
    """The answer's shape of hq-clip, asked of a text, which a server that says it again answers."""
    from clipkit.prompts.recipes import source

    shape = source("hq-clip")
    return (
        'name = "hq"\nabout = "a"\nmethod = "rewrite"\nprompt = "{record.answer}"\n' + shape[shape.index("[answer.") :]
    )


def about_answer(answer: str) -> Request:
    from clipkit.stream.record import Record

    return about("a", record=Record({"answer": json.dumps(answer)}))
