"""config.json as a bomb, as a lie, or as a way to other code."""

from pathlib import Path

from transformers import T5Config

from tests.hostile.case import Build, Case, canary, config, edit_json, then, write


def add_text(text: str) -> Build:
    """One more entry, spelt as no JSON library would."""

    def edit(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(path.read_text(encoding="utf-8").rstrip().removesuffix("}") + f", {text}}}", encoding="utf-8")

    return edit


def nest(depth: int) -> Build:
    return add_text('"a": ' + '{"a": ' * depth + "1" + "}" * depth)


def become_a_folder(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()


def bring_code(folder: Path) -> None:
    """Code for every automatic class, under the names that transformers imports."""
    code = f"open({str(canary(folder))!r}, 'w').close()\nclass Model: ...\n"
    for module in ("modeling_bert", "tokenization_bert", "configuration_bert", "__init__"):
        (folder / f"{module}.py").write_text(code)
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(code)
    config(auto_map={"AutoModel": "modeling_bert.Model", "AutoConfig": "configuration_bert.Model"})(folder)
    edit_json(
        "tokenizer_config.json",
        lambda raw: raw.update(auto_map={"AutoTokenizer": ["tokenization_bert.Model", "tokenization_bert.Model"]}),
    )(folder)


def bring_code_from_elsewhere(folder: Path) -> None:
    config(auto_map={"AutoModel": "someone/else--modeling.Model"}, custom_pipelines={"x": {"impl": "evil.P"}})(folder)


def utf16(folder: Path) -> None:
    path = folder / "config.json"
    path.write_bytes(path.read_text(encoding="utf-8").encode("utf-16"))


VALID = "config"
CASES = [
    Case("no JSON", write("config.json", "model_type: bert"), "JSON"),
    Case("a list", write("config.json", '["bert"]'), "JSON object"),
    Case("in UTF-16", utf16, "JSON"),
    Case("of two megabytes", write("config.json", " " * 2**21 + "{}"), "1,048,576"),
    Case("brackets without end", write("config.json", "[" * 10**6), "JSON"),
    Case("nested beyond the stack", nest(50_000), "JSON"),
    Case("a folder", become_a_folder, "config.json"),
    Case("a number of a million digits", add_text('"seed": ' + "9" * 500_000), "JSON"),
    Case("one name twice", add_text('"model_type": "albert"'), "twice"),
    Case("NaN", add_text('"layer_norm_eps": NaN'), "NaN"),
    Case("an infinite epsilon", config(layer_norm_eps=float("inf")), "depend on the text"),
    Case("a negative epsilon", config(layer_norm_eps=-1e9), "finite outputs"),
    Case("an unknown architecture", config(model_type="bert9000"), "bert9000"),
    Case("an architecture that is a list", config(model_type=["bert"]), "model_type"),
    Case("a million layers", config(num_hidden_layers=10**6), "1,000,000"),
    Case("a hundred thousand layers", config(num_hidden_layers=10**5), "far more"),
    Case("layers beyond any integer", config(num_hidden_layers=10**40), "131,072 layers"),
    Case("layers that are no number", config(num_hidden_layers="many"), VALID),
    Case("layers below zero", config(num_hidden_layers=-1), "one layer"),
    Case("a hidden size of a billion", config(hidden_size=10**9), "far more"),
    Case("a hidden size beyond any integer", config(hidden_size=2**200), VALID),
    Case("a hidden size below zero", config(hidden_size=-32), VALID),
    Case("a hidden size of zero", config(hidden_size=0), VALID),
    Case("heads that do not divide", config(num_attention_heads=5), VALID),
    Case("no heads", config(num_attention_heads=0), VALID),
    Case("a vocabulary of a trillion", config(vocab_size=10**12), "far more"),
    Case("positions of a trillion", config(max_position_embeddings=10**12), "far more"),
    Case("a billion labels", config(num_labels=10**9), "1,000,000,000"),
    Case("labels in words", config(num_labels="1000000000000"), VALID),
    Case("labels that are a list", config(id2label=[[1]]), VALID),
    Case(
        "layers in a nested list",
        config(model_type="gpt_neo", attention_types=[[["global"], 10**7]]),
        "attention_types",
    ),
    Case(
        "shared layers without end", config(model_type="albert", num_hidden_layers=10**5, embedding_size=32), "far more"
    ),
    Case(
        "tables without end",
        config(model_type="gptj", max_position_embeddings=10**10, n_embd=32, n_layer=2, n_head=2, rotary_dim=8),
        "far more",
    ),
    Case("heads to prune that are not there", config(pruned_heads={"77": [0]}), code=None),
    Case("an activation that is code", config(hidden_act="__import__('os').system('true')"), VALID),
    Case("a dropout above one", config(hidden_dropout_prob=5.0), VALID),
    Case("a number format that is a function", config(dtype="load"), VALID),
    Case("attention from the hub", config(attn_implementation="someone/kernel"), "someone/kernel"),
    Case("attention of a part from the hub", config(_attn_implementation={"": "someone/kernel:run"}), "someone/kernel"),
    Case("weights in another file", config(transformers_weights="../evil.bin"), "../evil.bin"),
    Case("the config of another model", config(intermediate_size=48), "fit the config"),
    Case("quantized weights", config(quantization_config={"quant_method": "awq"}), "quantized", code=3),
    Case("an encoder-decoder", lambda folder: T5Config().save_pretrained(folder), "encoder-decoder", code=3),
    Case("a model of images", config(model_type="vit"), "text", code=3),
    Case("code for every automatic class", bring_code, code=None),
    Case("code of another repository", bring_code_from_elsewhere, code=None),
    Case("a generation config that is a bomb", write("generation_config.json", "[" * 10**6), code=None),
    Case("a name that leads to the hub", config(_name_or_path="someone/else"), code=None),
    Case("ids beyond the vocabulary", config(pad_token_id=10**9), VALID),
    Case("ids beyond the vocabulary that are not used", config(eos_token_id=10**9), code=None),
    Case(
        "groups of layers without end",
        config(model_type="albert", num_hidden_groups=10**9, embedding_size=32),
        "far more",
    ),
    Case(
        "layers of a group without end",
        config(model_type="albert", inner_group_num=10**9, embedding_size=32),
        "far more",
    ),
    Case("a class that is no model", config(architectures=["os.system"]), code=None),
    Case("marked as a decoder", then(config(is_decoder=True)), code=None),
]
