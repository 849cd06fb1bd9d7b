"""The pretraining recipes: scenes are kept and moved with their labels, lessons show what they say they show."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))

import mikasa_lessons as lessons
import mikasa_scenes as scenes
import pretrain_mikasa
import pretrain_notes as notes
from pretraining import keep, kept, resume

from engram.backbones.tiny import MIKASA, pretrained

RED, LIME = scenes.COLORS.index("red"), scenes.COLORS.index("lime")
BALL = scenes.SHAPES.index("sphere") * len(scenes.COLORS)


def made(rng: np.random.Generator, frames: int = 6, objects: int = 5) -> dict[str, np.ndarray]:
    """What engram/envs/mikasa/frames.py would make, without its simulator."""
    kinds = rng.integers(scenes.KINDS, size=(frames, objects))
    kinds[:, -1] = -1
    positions = rng.uniform(-0.3, 0.3, (frames, objects, 3)).astype(np.float32)
    pixels = rng.uniform(0, 128, (frames, 2, objects, 2)).astype(np.float32)
    pixels[kinds[:, None].repeat(2, 1) < 0] = np.nan
    smooth = rng.integers(0, 256, (2, frames, 4, 4, 3)).repeat(32, 2).repeat(32, 3).astype(np.uint8)
    proprio = rng.normal(size=(frames, 7)).astype(np.float32)
    labels = {"proprio": proprio, "kinds": kinds, "positions": positions, "pixels": pixels}
    return {"base": smooth[0], "wrist": smooth[1], **labels}


def part(rng: np.random.Generator, frames: int = 6) -> scenes.Scenes:
    drawn = made(rng, frames)
    pictures = np.stack([drawn["base"], drawn["wrist"]], 1)
    return scenes.Scenes(pictures, *(drawn[key] for key in scenes.Scenes._fields[1:]))


def test_a_shard_keeps_labels_exactly_and_pictures_nearly(tmp_path):
    drawn = made(np.random.default_rng(0))
    scenes.write_shard(tmp_path / "0000.npz", drawn)
    found = scenes.read_shard(tmp_path / "0000.npz")
    for key in scenes.Scenes._fields[1:]:
        np.testing.assert_array_equal(getattr(found, key), drawn[key])
    for camera, name in enumerate(scenes.CAMERAS):
        assert np.abs(found.pictures[:, camera].astype(int) - drawn[name]).mean() < 3
    assert [path.name for path in tmp_path.iterdir()] == ["0000.npz"]


def test_what_singles_an_object_out_is_its_kind_or_what_it_alone_has():
    rng, kinds = np.random.default_rng(0), np.array([RED, LIME, BALL + RED, BALL + LIME + 1])
    names = [{scenes.called(rng, kinds, i) for _ in range(50)} for i in range(4)]
    assert names == [{"red cube"}, {"lime cube", "lime one"}, {"red sphere"}, {"blue sphere", "blue one"}]
    alone = {scenes.called(rng, kinds[[0, 3]], 0) for _ in range(50)}
    assert alone == {"red cube", "red one", "cube"}
    ball = {scenes.called(rng, kinds[[0, 3]], 1) for _ in range(50)}
    assert ball == {"blue sphere", "blue one", "sphere", "ball"}


def test_what_is_moved_comes_first_and_what_it_is_moved_to_after():
    rng, kinds = np.random.default_rng(0), np.array([RED, BALL + LIME])
    told = {scenes.touching(rng, kinds, 0) for _ in range(200)}
    assert "touch the cube" in told
    assert "move the red one to the lime sphere" in told
    moves = [text for text in told if not text.startswith("touch")]
    assert all(re.search("lime sphere|cube|red", text).group() != "lime sphere" for text in moves)
    assert any(not text.endswith("lime sphere") for text in moves)  # words behind, which change nothing


def test_labels_move_with_the_picture():
    """A white dot where the label says, before and after; labels outside are gone."""
    torch.manual_seed(0)
    frames = 64
    pixels = torch.randint(20, 108, (frames, 2, 1, 2)).float() + 0.5
    pictures = torch.zeros(frames, 2, 128, 128, 3, dtype=torch.uint8)
    for frame, camera in np.ndindex(frames, 2):
        column, row = pixels[frame, camera, 0].long()
        pictures[frame, camera, row, column] = 255
    plain = scenes.Scenes(
        pictures, torch.zeros(frames, 7), torch.zeros(frames, 1).long(), torch.zeros(frames, 1, 3), pixels
    )
    moved = scenes.augmented(plain)
    flat = moved.pictures.float().sum(-1).flatten(2).argmax(-1)
    found = torch.stack([flat % 128, flat // 128], -1) + 0.5
    np.testing.assert_allclose(moved.pixels[:, :, 0], found, atol=1e-4)
    assert (moved.pixels - pixels).abs().max() > scenes.CELL / 2
    edge = plain._replace(pixels=torch.full_like(pixels, 1.0))
    assert scenes.augmented(edge).pixels.isnan().any(), "some are moved out of the picture"


def test_tokens_are_the_cells_of_the_dense_answer():
    arrays = part(np.random.default_rng(1), frames=60)
    arrays.pixels[:] /= 4  # often two of one colour in a cell
    there, offset, form, way = pretrain_mikasa.cells(arrays.to("cpu"))
    tokens, colours = scenes.tokens_of(arrays.pixels), arrays.kinds % len(scenes.COLORS)
    shown = [tuple(each) for each in np.argwhere(tokens >= 0) if arrays.kinds[each[0], each[2]] >= 0]
    last = {(f, tokens[f, c, i], colours[f, i]): (f, c, i) for f, c, i in shown}  # of several in one cell
    assert len(last) < len(shown)
    assert there.sum() == len(last)
    for where, (frame, camera, item) in last.items():
        assert there[where]
        assert form[where] == arrays.kinds[frame, item] // len(scenes.COLORS)
        expected = arrays.pixels[frame, camera, item] / scenes.CELL % 1 - 0.5
        np.testing.assert_allclose(offset[where], expected, atol=1e-5)
        np.testing.assert_allclose(way[where], arrays.ways[frame, item], atol=1e-5)
    assert (tokens[np.isnan(arrays.pixels[..., 0])] == -1).all()


@pytest.mark.parametrize(("kinds", "expected"), [
    ([RED, RED, LIME], {(0, 1), (1, 0)}),
    ([RED, BALL + RED, LIME], {(0, 1), (1, 0)}),  # of one colour, no two of a kind
    ([RED, RED, BALL + RED], {(0, 1), (1, 0)}),  # the ball has two of its colour: which one would be meant?
    ([RED, RED, RED], set()),
    ([RED, LIME], set()),
])  # fmt: skip
def test_who_is_like_whom(kinds, expected):
    cells = np.stack([np.arange(len(kinds)), 64 + np.arange(len(kinds))])
    assert set(lessons.alike(np.array(kinds), cells)) == expected


def test_what_cannot_be_shown_alone_makes_no_lesson():
    same_cell = np.array([[3, 3], [-1, -1]])
    assert lessons.alike(np.array([RED, RED]), same_cell) == []
    assert lessons.alike(np.array([RED, RED]), np.array([[3, 3], [70, 71]])) == [(0, 1), (1, 0)]


def test_the_others_are_covered_first_and_the_object_itself_later():
    cells = np.array([[3, 5, -1], [70, 70, 80]])
    first, later = lessons.covered(cells, 0)
    assert set(np.flatnonzero(~first)) == {5, 70, 80}
    assert set(np.flatnonzero(~later)) == {3, 70}


def test_lessons_ask_for_what_they_name():
    rng = np.random.default_rng(2)
    arrays = part(rng, 400)
    arrays.kinds[arrays.kinds >= 0] %= 3  # red, lime and blue cubes: many pairs
    batch = lessons.lessons_of(arrays, rng)
    assert set(batch.about) == {"told", "like", "recalled"}
    for row in np.flatnonzero(batch.about == "like"):
        goal = np.linalg.norm(arrays.ways[row] - batch.goal[row], axis=1).argmin()
        assert arrays.kinds[row, goal] == batch.kind[row, 0], "the goal is of the colour that is noted"
        (noted,) = (i for i in np.flatnonzero(arrays.kinds[row] == batch.kind[row, 0]) if i != goal)
        (first, later), tokens = batch.shown[row], scenes.tokens_of(arrays.pixels)[row]
        assert first[tokens[:, noted][tokens[:, noted] >= 0]].any(), "what is to be noted is seen"
        assert not first[tokens[:, goal][tokens[:, goal] >= 0]].any(), "its like is not"
        assert later[tokens[:, goal][tokens[:, goal] >= 0]].any(), "until it is to be touched"
        assert not later[tokens[:, noted][tokens[:, noted] >= 0]].any()
        assert not any(color in batch.told[row].split() for color in scenes.COLORS)


@pytest.mark.parametrize("workers", [0, 1])
def test_what_is_drawn_depends_on_the_update_alone(workers):
    def draw(step: int, rng: np.random.Generator) -> tuple:
        return step, rng.random()

    whole = list(scenes.draws(draw, 5, range(6), 0))
    assert list(scenes.draws(draw, 5, range(2, 6), workers)) == whole[2:]


def test_a_state_that_is_kept_is_what_resumes(tmp_path):
    torch.manual_seed(0)
    backbone, answers = torch.nn.Linear(3, 3), torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW([*backbone.parameters(), *answers.parameters()])
    assert resume(tmp_path, backbone, answers, optimizer) == 0
    answers(backbone(torch.ones(1, 3))).sum().backward()
    optimizer.step()
    keep(tmp_path, 7, backbone, answers, optimizer)
    others = torch.nn.Linear(3, 3), torch.nn.Linear(3, 2)
    again = torch.optim.AdamW([*others[0].parameters(), *others[1].parameters()])
    assert resume(tmp_path, *others, again) == 7
    assert torch.equal(others[1].weight, answers.weight)
    assert len(again.state_dict()["state"]) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


@pytest.mark.parametrize("words", [False, True])
def test_going_on_from_weights_the_tower_rests_and_words_learn_where_asked(words, tmp_path, monkeypatch):
    few = part(np.random.default_rng(0), 8)
    monkeypatch.setattr(notes, "READING", 0)
    monkeypatch.setattr(notes, "HELD", len(few.kinds))
    monkeypatch.setattr(notes, "load", lambda folder, count: few)
    monkeypatch.setattr(notes, "split", lambda data: (data, data))
    notes.main(notes.Args(weights=MIKASA, words=words, updates=1, frames=4, workers=0, out=tmp_path))
    found, before = kept(tmp_path)["backbone"], pretrained(MIKASA).state_dict()
    changed = {name.split(".")[0] for name in before if not torch.equal(found[name], before[name])}
    assert changed == {"slots", "question", "notes"} | ({"context", "words", "word_place"} if words else set())
    assert (tmp_path / MIKASA.name).is_file()
