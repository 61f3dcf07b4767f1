"""Merging: the mean by hand, exact for adapters, tied and sharded checkpoints, and what is refused."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from training_examples import ingested, recipe

from askwell import runs, weights
from askwell.errors import DataError, RecipeError
from askwell.recipes import Lora, MergeRecipe, ScratchModel
from askwell.training import merge, sft

TEXTS = ["Which city would you like to eat in?", "What would you like to eat?"] * 3
SIZES = ScratchModel(vocabulary=300, hidden=16, layers=2, heads=2)


def moved(policy, seed, scale=0.02):
    """The policy with noise on every weight that is trained."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in policy.model.parameters():
            if weight.requires_grad:
                weight.add_(scale * torch.randn(weight.shape, generator=draw))
    return policy


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    path = tmp_path_factory.mktemp("base") / "base"
    weights.save(weights.create(SIZES, TEXTS, stop_marker="<stop />", seed=0), path)
    return path


@pytest.fixture(scope="module")
def models(base, tmp_path_factory):
    """Three whole models near one base."""
    folder = tmp_path_factory.mktemp("models")
    for seed in (1, 2, 3):
        weights.save(moved(weights.load(str(base)), seed), folder / f"m{seed}")
    return [folder / f"m{seed}" for seed in (1, 2, 3)]


@pytest.fixture(scope="module")
def adapters(base, tmp_path_factory):
    """Three sets of adapters of unlike rank and scale."""
    folder = tmp_path_factory.mktemp("adapters")
    for seed, lora in ((1, Lora(rank=2, alpha=4)), (2, Lora(rank=3, alpha=3)), (3, Lora(rank=2, alpha=1))):
        weights.save(moved(weights.load(str(base), lora=lora, trainable=True), seed, 0.1), folder / f"a{seed}")
    return [folder / f"a{seed}" for seed in (1, 2, 3)]


def merged(tmp_path, parts, **fields):
    wanted = MergeRecipe.model_validate({"parts": parts, "output": tmp_path / "merged", **fields})
    counts = runs.carry_out(merge, wanted, "merge")
    return wanted.output / "checkpoint", counts


def tensors(folder):
    found = {}
    for file in folder.glob("*.safetensors"):
        found |= load_file(file)
    return found


@pytest.mark.parametrize(
    ("fields", "shares"),
    [({}, (1 / 3, 1 / 3, 1 / 3)), ({"weights": (1, 2, 5)}, (0.125, 0.25, 0.625)), ({"leave_out": 1}, (0.5, 0, 0.5))],
)
def test_whole_models_are_averaged_weight_by_weight(models, tmp_path, fields, shares):
    if "leave_out" in fields:
        fields = {"leave_out": models[fields["leave_out"]]}
    folder, counts = merged(tmp_path, models, **fields)
    parts = [tensors(path) for path in models]
    for name, tensor in tensors(folder).items():
        expected = sum(share * part[name].double() for share, part in zip(shares, parts, strict=True))
        torch.testing.assert_close(tensor.double(), expected, rtol=0, atol=3e-7)
    assert (counts["kind"], counts["parts"], counts["types"]) == ("models", sum(map(bool, shares)), ["float32"])
    loaded = weights.load(str(tmp_path / "merged"))
    assert loaded.model.lm_head.weight is loaded.model.model.embed_tokens.weight


def test_half_precision_is_kept_on_disk_and_summed_in_float32(models, tmp_path):
    """Six parts whose small steps a running sum in bfloat16 would round away."""
    draw = torch.Generator().manual_seed(0)
    start = (0.03 * torch.randn(4000, generator=draw)).bfloat16()
    steps = [(start.float() + 1e-3 * torch.randn(4000, generator=draw)).bfloat16() for _ in range(6)]
    paths = []
    for number, tensor in enumerate(steps):
        path = tmp_path / f"p{number}"
        path.mkdir()
        (path / "config.json").write_text("{}")
        save_file({"w": tensor, "steps": torch.tensor([7])}, path / "model.safetensors")
        paths.append(path)
    folder, counts = merged(tmp_path, paths)
    found = tensors(folder)
    assert counts["types"] == ["bfloat16", "int64"] and found["steps"].tolist() == [7]
    exact = torch.stack(steps).double().mean(0)
    rounded = sum(steps, torch.zeros(4000, dtype=torch.bfloat16)) / 6
    # Half a unit of the last of eight bits is all that rounding once may cost.
    allowed = exact.abs() * 2**-8 * 1.001
    assert bool(((found["w"].double() - exact).abs() <= allowed).all())
    assert not bool(((rounded.double() - exact).abs() <= allowed).all())
    save_file({"w": steps[0], "steps": torch.tensor([8])}, paths[0] / "model.safetensors")
    with pytest.raises(DataError, match="tensor 'steps' of torch.int64 differs"):
        merged(tmp_path / "other", paths)


def effect(policy):
    """What the adapters add to each weight."""
    return {
        name: module.get_delta_weight("default").detach()
        for name, module in policy.model.named_modules()
        if hasattr(module, "get_delta_weight")
    }


def test_adapters_are_averaged_in_what_they_do(adapters, base, tmp_path):
    shares = (0.125, 0.25, 0.625)
    folder, counts = merged(tmp_path, adapters, weights=(1, 2, 5))
    assert (counts["kind"], json.loads((folder / "adapter_config.json").read_text())["r"]) == ("adapters", 7)
    parts = [effect(weights.load(str(path))) for path in adapters]
    found = effect(weights.load(str(folder)))
    assert len(found) == 14
    for name, delta in found.items():
        expected = sum(share * part[name] for share, part in zip(shares, parts, strict=True))
        assert float(expected.abs().max()) > 1e-4
        torch.testing.assert_close(delta, expected, rtol=1e-5, atol=1e-8)


def test_reward_models_are_averaged_with_their_heads(base, tmp_path):
    """Reward fusion: whole models, and adapters whose head is trained in full."""
    for kind, lora in (("whole", None), ("lora", Lora(rank=2))):
        paths = []
        for seed in (1, 2):
            model = moved(weights.load_reward(str(base), lora=lora, trainable=True, seed=seed), seed, 0.1)
            weights.save(model, tmp_path / f"{kind}{seed}")
            paths.append(tmp_path / f"{kind}{seed}")
        folder, _ = merged(tmp_path / kind, paths)
        heads = [weights.load_reward(str(path)).model.score.weight for path in (*paths, folder)]
        assert not torch.equal(heads[0], heads[1])
        torch.testing.assert_close(heads[2], (heads[0] + heads[1]) / 2)


def test_the_mean_of_adapters_is_the_mean_of_the_models_that_they_make(adapters, tmp_path):
    whole = []
    for path in adapters:
        policy = weights.load(str(path))
        weights.save(policy._replace(model=policy.model.merge_and_unload()), tmp_path / f"whole-{path.name}")
        whole.append(tmp_path / f"whole-{path.name}")
    one, other = (merged(tmp_path / name, paths)[0] for name, paths in (("one", adapters), ("other", whole)))
    ids = torch.arange(7, 40)[None]
    logits = [weights.load(str(path)).model(ids).logits for path in (one, other)]
    torch.testing.assert_close(*logits, rtol=1e-5, atol=1e-5)


def test_sharded_checkpoints_keep_their_files(models, tmp_path):
    sharded = []
    for path in models:
        policy = weights.load(str(path))
        policy.model.save_pretrained(tmp_path / path.name, max_shard_size="20KB")
        policy.tokenizer.save_pretrained(tmp_path / path.name)
        sharded.append(tmp_path / path.name)
    assert len(list(sharded[0].glob("*.safetensors"))) > 1
    one, other = merged(tmp_path / "one", sharded)[0], merged(tmp_path / "other", models)[0]
    assert {file.name for file in one.iterdir()} == {file.name for file in sharded[0].iterdir()}
    expected = weights.load(str(other)).model.state_dict()
    assert all(
        torch.equal(tensor, expected[name]) for name, tensor in weights.load(str(one)).model.state_dict().items()
    )


def test_a_head_that_one_part_stores_beside_its_embeddings_is_left_to_loading(models, tmp_path):
    stored = tensors(models[0])
    copy = tmp_path / "copy"
    weights.save(weights.load(str(models[0])), copy)
    save_file({**stored, "lm_head.weight": stored["model.embed_tokens.weight"].clone()}, copy / "model.safetensors")
    for place, parts in enumerate(([copy, models[1]], [models[1], copy])):
        folder, _ = merged(tmp_path / str(place), parts)
        assert "lm_head.weight" not in tensors(folder)
        weights.load(str(folder))


def trained(folder, name, **fields):
    source = folder / "ingest"
    if not source.exists():
        ingested(source, 3)
    wanted = recipe(source, folder / name, loss="all", epochs=0.1, **fields)
    runs.carry_out(sft, wanted, "train")
    return wanted.output


def test_runs_of_one_base_are_merged_and_strangers_refused(tmp_path):
    start, stranger = trained(tmp_path, "start"), trained(tmp_path, "stranger", seed=1)
    parts = [trained(tmp_path, f"part{seed}", model=str(start), seed=seed) for seed in (1, 2)]
    folder, _ = merged(tmp_path / "of", parts)
    again, _ = merged(tmp_path / "again", [folder.parent, start])
    assert weights.load(str(again))
    with pytest.raises(RecipeError, match=r"part1 was trained from .*start, .*stranger from .*stranger; weights"):
        merged(tmp_path / "strangers", [parts[0], stranger])
    assert not (tmp_path / "strangers" / "merged").exists()


def spoiled(base, path, **config):
    weights.save(weights.load(str(base)), path)
    file = path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **config}))
    return path


def test_parts_that_do_not_fit_are_refused_in_one_line(base, models, adapters, tmp_path):
    wider = tmp_path / "wider"
    weights.save(weights.create(SIZES.model_copy(update={"hidden": 32}), TEXTS, stop_marker="<stop />", seed=0), wider)
    words = tmp_path / "words"
    other = weights.create(SIZES, ["An entirely other language is spoken here"] * 3, stop_marker="<stop />", seed=0)
    weights.save(weights.Policy(weights.load(str(base)).model, other.tokenizer), words)
    template = tmp_path / "template"
    policy = weights.load(str(base))
    policy.tokenizer.chat_template += " "
    weights.save(policy, template)
    short = tmp_path / "short"
    weights.save(weights.load(str(base)), short)
    kept = tensors(short)
    del kept["model.norm.weight"]
    save_file(kept, short / "model.safetensors")
    wide = tmp_path / "wide"
    weights.save(weights.load(str(base)), wide)
    save_file({**tensors(wide), "model.norm.weight": torch.ones(3)}, wide / "model.safetensors")
    settings = json.loads((adapters[0] / "adapter_config.json").read_text())
    unlike = {"dora": {"use_dora": True}, "pissa": {"init_lora_weights": "pissa"}, "moe": {"target_parameters": ["w"]}}
    for name, changed in unlike.items():
        (tmp_path / name).mkdir()
        for file in adapters[0].iterdir():
            (tmp_path / name / file.name).write_bytes(file.read_bytes())
        (tmp_path / name / "adapter_config.json").write_text(json.dumps({**settings, **changed}))
    far = tmp_path / "far"
    far.mkdir()
    for file in adapters[1].iterdir():
        (far / file.name).write_bytes(file.read_bytes())
    (far / "adapter_config.json").write_text(json.dumps({**settings, "base_model_name_or_path": "elsewhere"}))
    half = tmp_path / "half"
    (half / "checkpoint").mkdir(parents=True)
    for parts, error, says in (
        ([models[0], wider], RecipeError, "config.json differs in hidden_size"),
        ([models[0], spoiled(base, tmp_path / "theta", rope_theta=1.0)], RecipeError, "differs in .*rope_theta"),
        ([models[0], words], RecipeError, "differ in their tokenizer: the same id would mean two things"),
        ([models[0], template], RecipeError, "differ in their chat template"),
        ([models[0], short], RecipeError, "short: no tensor 'model.norm.weight'"),
        ([models[0], wide], RecipeError, r"'model.norm.weight' is \[16\] in .* and \[3\] in .*wide"),
        ([models[0], adapters[0]], RecipeError, "is a whole model and .* are adapters"),
        ([adapters[0], tmp_path / "dora"], RecipeError, "adapters with use_dora True are not plain LoRA"),
        ([adapters[0], tmp_path / "pissa"], RecipeError, "with init_lora_weights 'pissa' are not plain LoRA"),
        ([adapters[0], tmp_path / "moe"], RecipeError, r"with target_parameters \['w'\] are not plain LoRA"),
        ([adapters[0], far], RecipeError, "far adapts elsewhere; adapters need one base"),
        ([models[0], half], DataError, r"half: an unfinished run \(no manifest.json\)"),
        ([models[0], tmp_path / "none"], DataError, "none: no config.json with .*safetensors"),
    ):
        with pytest.raises(error, match=says) as refusal:
            merged(tmp_path, parts)
        assert "\n" not in str(refusal.value)
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"parts": ["a"]}, "at least 2"),
        ({"parts": ["a", "a"]}, "names one twice"),
        ({"parts": ["a", "b"], "weights": [1]}, "1 for 2 parts"),
        ({"parts": ["a", "b"], "weights": [0, 0]}, "fewer than two would be left"),
        ({"parts": ["a", "b"], "leave_out": "c"}, "c is none of the parts a, b"),
        ({"parts": ["a", "b"], "leave_out": "a"}, "fewer than two would be left"),
    ],
)
def test_recipes_that_average_nothing_are_refused(fields, says):
    with pytest.raises(ValueError, match=says):
        MergeRecipe.model_validate({"output": "o", **fields})


def test_the_plan_loads_no_torch(models, tmp_path):
    words = ["merge", "--parts", ",".join(map(str, models)), "--output", str(tmp_path / "o"), "--dry-run"]
    code = f"import sys; from askwell import cli; sys.exit(cli.main({words!r}) or 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "parts: 3" in done.stdout
