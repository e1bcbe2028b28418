"""Figures in manifests and model cards: of these bytes, and nothing else is changed."""

import errno
import json
import re

import colours
import fake_format
import pytest

from checkpoints import files
from checkpoints.reader import Provenance
from exporters import cards, manifest
from exporters.evaluation.evaluating import evaluate
from exporters.exporting import export
from exporters.rebuilding import rebuild
from exporters.verification import verify

TABLE = fake_format.TABLE


@pytest.fixture
def place(tmp_path):
    colours.folders(tmp_path / "colours")
    return tmp_path


def exported(place, checkpoint=None):
    checkpoint = checkpoint or colours.checkpoint()
    done = export(
        checkpoint,
        place / "artifacts",
        formats=[fake_format.FORMAT],
        tasks=["classification"],
        options=fake_format.OPTIONS,
        images=fake_format.IMAGES,
        reference=fake_format.FakeReference(checkpoint),
        force=True,
    )
    (artifact,) = done.artifacts
    assert artifact.is_kept
    return artifact.path


def run(artifacts, place, **options):
    return evaluate(
        artifacts, place / "colours", formats=TABLE, **{"cards": True} | options
    )


def described(path):
    return json.loads(manifest.path_of(path).read_text())


def card(path):
    return manifest.card_of(path).read_text()


def test_figures_come_into_the_manifest_and_the_card(place):
    path = exported(place)
    before = described(path)
    done = run(path.parent, place)
    assert done.cards == (str(path),) and done.without_card == {}
    after = described(path)
    assert after.pop("evaluation") == {
        "images": "colours",
        "layout": "a directory with one subdirectory per class",
        "count": 24,
        "top_1": 1.0,
        "top_5": 1.0,
    }
    companions, others = after.pop("companions"), before.pop("companions")
    name = manifest.card_of(path).name
    assert companions == others | {name: files.digest(manifest.card_of(path))}
    assert companions[name] != others[name]
    assert after == before
    text = card(path)
    assert (
        "## Evaluation\n\nOn 24 images of colours, a directory with one subdirectory per "
        "class, the right class comes first for 100.00 %, and is among the first five "
        "for 100.00 %.\n"
    ) in text
    header = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)[1]
    assert header[header.index("model-index") :].splitlines() == [
        "model-index:",
        f'- name: "{path.name}"',
        "  results:",
        "  - task:",
        "      type: image-classification",
        "    dataset:",
        '      name: "colours"',
        '      type: "colours"',
        "    metrics:",
        "    - type: accuracy",
        "      name: Top-1",
        "      value: 1",
        "    - type: accuracy",
        "      name: Top-5",
        "      value: 1",
    ]


def test_the_card_is_made_of_the_manifest_alone(place):
    path = exported(place)
    run(path, place)
    assert card(path) == cards.text(path.name, fake_format.FORMAT, described(path))


def test_another_evaluation_takes_the_place_of_the_first(place):
    path = exported(place)
    run(path, place)
    first = card(path)
    colours.save(place / "colours", "4", "wrong.png", 0)
    run(path, place)
    assert "On 25 images" in card(path) and "96.00 %" in card(path)
    assert card(path).count("## Evaluation") == 1
    (place / "colours" / "4" / "wrong.png").unlink()
    run(path, place)
    assert card(path) == first


def test_the_artifact_is_as_before(place):
    checkpoint = colours.checkpoint()
    path = exported(place)
    content = path.read_bytes()
    run(path, place)
    assert path.read_bytes() == content
    reference = fake_format.FakeReference(checkpoint)
    images = {"images": fake_format.IMAGES, "formats": TABLE, "reference": reference}
    assert verify(path, checkpoint, **images).passed
    assert rebuild(path, checkpoint, formats=TABLE, reference=reference).passed
    assert manifest.changed_companions(path) == []
    assert not list(path.parent.glob(".irv2-*"))


def test_an_export_begins_anew(place):
    path = exported(place)
    before = described(path), card(path)
    run(path, place)
    assert exported(place) == path
    assert (described(path), card(path)) == before


def test_nothing_is_written_unless_asked(place):
    path = exported(place)
    before = described(path), card(path)
    done = run(path, place, cards=False)
    assert done.cards == () and (described(path), card(path)) == before


def test_an_edited_card_is_left_alone(place):
    path = exported(place)
    manifest.card_of(path).write_text(card(path) + "\nMine.\n")
    before = described(path), card(path)
    done = run(path, place)
    assert "was edited since it was made" in done.without_card[str(path)]
    assert (described(path), card(path)) == before
    manifest.card_of(path).unlink()
    assert run(path, place).cards and "## Evaluation" in card(path)


def test_a_changed_artifact_has_no_card_made(place):
    path = exported(place)
    before = described(path), card(path)
    colours.artifact(path, colours.blind_to_red())
    done = run(path, place)
    assert "is not as its manifest says" in done.without_card[str(path)]
    assert (described(path), card(path)) == before


def test_figures_of_what_was_replaced_since_go_nowhere(place):
    """It was evaluated for hours, and somebody exported another one in between."""
    path = exported(place)
    other = colours.blind_to_red()

    def export_another(event):
        if getattr(event, "name", "") == "evaluate" and not replaced:
            replaced.append(exported(place, other))

    replaced = []
    done = run(path, place, progress=export_another)
    assert replaced
    assert "was replaced since it was evaluated" in done.without_card[str(path)]
    assert "evaluation" not in described(path) and "## Evaluation" not in card(path)


def test_a_card_that_cannot_be_written_costs_no_figures(place, monkeypatch):
    path = exported(place)

    def refuse(*_):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(files, "replace", refuse)
    done = run(path, place)
    assert done.artifacts[0].top_1 == 1
    assert "Read-only file system" in done.without_card[str(path)]


@pytest.mark.parametrize("change", [{"format": ["fake"]}, {"options": None}])
def test_a_manifest_that_lacks_what_a_card_says(place, change):
    path = exported(place)
    files.write_json(manifest.path_of(path), described(path) | change)
    done = run(path, place)
    assert "is not a manifest of this irv2" in done.without_card[str(path)]


def test_what_is_signed_is_left_alone(place):
    path = exported(place)
    manifest.signature_of(path).write_text("{}")
    before = described(path), card(path)
    done = run(path, place)
    assert "is signed, and its manifest" in done.without_card[str(path)]
    assert (described(path), card(path)) == before


def test_no_manifest(place):
    path = colours.artifact(place / "model.fake")
    done = run(path, place)
    assert "has no manifest beside it" in done.without_card[str(path)]
    assert not manifest.card_of(path).exists()


def test_figures_of_stand_ins_are_for_no_site(place):
    checkpoint = colours.checkpoint()
    checkpoint.provenance = Provenance.STAND_IN
    path = exported(place, checkpoint)
    run(path, place)
    assert "model-index" not in card(path)
    assert "100.00 %. That is chance: the weights are generated." in card(path)
    assert "**STAND-IN.**" in card(path)
