"""What a config may not say of further senses, each by its field, value, reason and remedy."""

import pytest
from support.configs import checked, refusal

from janus_jax.config.senses import mesh_problems
from janus_jax.config.sizes import model_problems
from janus_jax.model import config as sizes

ON = {"model.senses.points.groups": "16", "model.senses.points.heads": "4"}


def test_a_line_of_the_command_gives_a_model_a_sense():
    model = checked(ON).model
    assert model.senses == {"points": {"groups": 16, "heads": 4}}
    assert model.children[-2:] == ("points_encoder", "points_adaptor")
    assert sizes.to_dict(model)["senses"] == model.senses


def test_its_children_can_be_trained_where_the_model_has_them():
    flames = {"stages.stage3.trainable": "points_encoder,points_adaptor"}
    assert checked(ON | flames).stages["stage3"].trainable == ("points_encoder", "points_adaptor")
    found = refusal(flames)
    assert [f"stages.stage3.trainable is '{x}': unknown" for x in ("points_encoder", "points_adaptor")] == [
        line[: line.index("unknown") + 7] for line in found
    ]  # fmt: skip


@pytest.mark.parametrize(
    "senses, words",
    [
        ({"point": {}}, "model.senses.point: there is no sense 'point'; did you mean 'points'"),
        ({"image": {}}, "model.senses.image: 'image' is the name of something else"),
        ({"tokens": {}}, "model.senses.tokens: 'tokens' is the name of something else"),
        ({"points": {"depth": 2}}, "model.senses.points.depth: unknown field"),
        ({"points": {"layers": 0}}, "model.senses.points.layers is 0: must be at least 1"),
        ({"points": {"channels": 4}}, "model.senses.points.channels is 4: a point has 3 numbers"),
        ({"points": {"points": 32}}, "model.senses.points.groups is 64: a cloud has points = 32"),
        (
            {"points": {"width": 100}},
            "model.senses.points.width is 100: 2 * heads = 12 must divide",
        ),
    ],
)
def test_senses_that_cannot_be_are_refused(senses, words):
    found = model_problems(sizes.JanusConfig(senses=senses), "model.")
    assert found and found[0].startswith(words), found


def test_a_mesh_must_divide_a_senses_heads():
    found = mesh_problems(sizes.JanusConfig(senses={"points": {}}), 4)
    assert found == [
        "model.senses.points.heads is 6: mesh.tensor = 4 must divide it; nearest: mesh.tensor = 3 or 6 "
        "(or heads 4 or 8)"
    ]
    assert not mesh_problems(sizes.JanusConfig(senses={"points": {"heads": 8}}), 4)
    assert not mesh_problems(sizes.JanusConfig(senses={"point": {}}), 4)


def test_numbers_of_another_kind_and_rows_without_room_are_refused():
    assert refusal({"model.senses.points.width": "wide"}) == [
        "--config.model.senses.points.width is 'wide': must be a whole number"
    ]
    (line, *_) = [x for x in refusal(ON | {"model.senses.points.groups": "300"}) if "rows" in x]
    assert (
        "stages.stage1.rows.length is 184: one input of model.senses.points is 300 tokens" in line
    )
