"""Hold a composed configuration against what it will build, before anything heavy is imported or written."""

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from minigpt.config import schema
from minigpt.config.conf import targets
from minigpt.config.errors import ConfigError, did_you_mean
from minigpt.config.signature import accepts, read_signature

# The values that make sense, by the name of the option wherever it stands: (lowest, highest, lowest itself excluded).
AT_LEAST_ONE = """
    num_heads num_kv_heads dim hidden_dim block_size batch_size max_steps devices num_nodes
    accumulate_grad_batches val_every_n_steps log_every_n_steps every_n_steps keep_last patience max_new_tokens top_k
    iterations val_tokens_per_batch window num_samples width average beam decode_lines num_lines order rows
    stride num_experts num_tokens longest guesses
""".split()
ABOVE_ZERO = "lr adamw_lr base gradient_clip_val eps line_every_s timeout_s sigma init_std cap".split()
NOT_NEGATIVE = """
    weight_decay temperature warmup_steps text_seed length_penalty balance_weight ahead_weight
""".split()
RANGES: dict[str, tuple[float, float, bool]] = {
    **dict.fromkeys(AT_LEAST_ONE, (1, math.inf, False)),
    **dict.fromkeys(ABOVE_ZERO, (0, math.inf, True)),
    **dict.fromkeys(NOT_NEGATIVE, (0, math.inf, False)),
    "seed": (0, 2**63 - 1, False),
    **dict.fromkeys("decay_fraction top_p mask_fraction probability".split(), (0, 1, True)),
    **dict.fromkeys("dropout attention_dropout momentum label_smoothing".split(), (0, 0.9999, False)),
    "final": (0, 1, False),
    "val_fraction": (0, 0.9, True),
    "vocab_size": (2, 1e6, False),
    "num_chars": (1000, 1e9, False),
    "num_layers": (1, 1000, False),
}
PRECISIONS = """
    auto 32-true 32 16-mixed bf16-mixed 16-true bf16-true 64-true 64 transformer-engine transformer-engine-float16
""".split()
CHOICES = {
    "precision": PRECISIONS,
    "accelerator": ["auto", "cpu", "gpu", "cuda", "mps"],
    "device": ["auto", "cpu", "cuda", "mps"],
    "strategy": ["auto", "ddp", "fsdp"],
    "model.cell": ["lstm", "gru", "rnn"],
    "logger.wandb.mode": ["auto", "online", "offline", "disabled"],
    "callbacks.early_stopping.mode": ["min", "max"],
}

LONG_TEXT = 1 << 26
MOST_TOKENS = 1 << 28  # in one step; the largest published batches have a sixteenth of that


def check(config: DictConfig, door: str) -> dict[str, Any]:
    """The configuration as plain data, resolved.

    Raises:
        ConfigError: for the first thing in it that cannot be used.
        omegaconf.errors.OmegaConfBaseException: for a value that is missing or refers to nothing.
    """
    plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    check_fields(plain, schema.DOORS[door], "")
    for path, node in parts(plain):
        check_part(path, node)
    for path, value in sorted(leaves(plain), key=lambda leaf: leaf[0].count(".")):
        check_value(path, value)
    if door == "train":
        check_together(plain)
    return plain


def check_fields(node: Mapping[str, Any], wanted: type, path: str) -> None:
    """Every key is a field of the schema and of its type."""
    annotations = {field.name: str(field.type) for field in fields(wanted)}
    for key, value in node.items():
        if key not in annotations:
            raise ConfigError(f"unknown option {path + str(key)!r}{did_you_mean(str(key), annotations)}")
        nested = vars(schema).get(annotations[key])
        if is_dataclass(nested) and isinstance(value, Mapping):
            check_fields(value, nested, f"{path}{key}.")
        else:
            check_type(path + str(key), value, annotations[key])


def check_part(path: str, node: Mapping[str, Any]) -> None:
    """A part names a constructor of the packaged configuration, and only options that it takes."""
    target = node["_target_"]
    if target not in targets():
        raise ConfigError(f"{path}._target_={target} is not built by any file in conf/{did_you_mean(str(target), [])}")
    signature = read_signature(target)
    if signature is None:
        raise ConfigError(f"{path}._target_: there is no {target}")
    for key, value in node.items():
        if key in ("_target_", "_partial_"):
            check_type(f"{path}.{key}", value, {"_target_": "str", "_partial_": "bool"}[key])
            continue
        if key in supplied(path):
            raise ConfigError(f"{path}.{key} is given by {supplied(path)[key]}: set that instead")
        if key not in signature:
            free = signature.keys() - supplied(path).keys()
            raise ConfigError(f"unknown option {f'{path}.{key}'!r}{did_you_mean(str(key), free)}")
        is_part = isinstance(value, Mapping) and "_target_" in value
        if signature[key].startswith("Callable") and not is_part:
            raise ConfigError(f"{path}.{key}={value} is no part: choose one with {path}/{key}=...")
        if not is_part:
            check_type(f"{path}.{key}", value, signature[key])


def supplied(path: str) -> Mapping[str, str]:
    """The options of a part that others give it, and who: setting them here would change nothing."""
    parts_of_model = dict.fromkeys(("dim", "num_heads", "block_size", "dropout", "head_dim"), "the model")
    return {
        "model": {"vocab_size": "the text"},
        "model.attention": parts_of_model,
        "model.encoder_attention": parts_of_model,
        "model.cross_attention": parts_of_model,
        "model.block": dict.fromkeys(("dim", "attention", "cross_attention", "mlp", "norm", "dropout"), "the model"),
        "model.embedding": {"dim": "the model", "vocab_size": "the text"},
        "model.mlp": {"dim": "the model"},
        "model.norm": {"dim": "the model"},
        "model.positions": parts_of_model,
        "data.tokenizer": dict.fromkeys(("characters", "merges", "pieces"), "the text"),
        "data.augmentation": {"tokens": "the text", "tokenizer": "data.tokenizer", "seed": "data.seed"},
        "data.blocks": {"num_tokens": "the text", "block_size": "data.block_size", "seed": "data.seed"},
        "optimizer": {"params": "the model"},
        "scheduler": {"step": "the run", "total_steps": "trainer.max_steps"},
        "trainer": {"precision": "precision", "callbacks": "the group callbacks", "logger": "the group logger"},
    }.get(path, {})


def check_type(path: str, value: Any, annotation: str) -> None:
    """Raises ConfigError for a value that does not fit an annotation."""
    if not accepts(annotation, value):
        wanted = annotation.replace("None", "null").replace("Optional", "null or ")
        raise ConfigError(f"{path}={value!r} must be of type {wanted}")


def check_value(path: str, value: Any) -> None:
    """Numbers are in their range, names among their choices."""
    name = path.rpartition(".")[2]
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ConfigError(f"{path}={value} is larger than any number of 64 bits")
    if name in RANGES and isinstance(value, int | float) and not isinstance(value, bool):
        low, high, exclusive = RANGES[name]
        if not (low < value <= high if exclusive else low <= value <= high):
            bound = f"more than {low:g}" if exclusive else f"at least {low:g}"
            limit = f" and at most {high:g}" if high < math.inf else ""
            raise ConfigError(f"{path}={value} must be {bound}{limit}")
    choices = CHOICES.get(path, CHOICES.get(name))
    if choices is not None and isinstance(value, str) and value not in choices:
        raise ConfigError(f"{path}={value} is not known{did_you_mean(value, choices)}")
    if path == "logger.wandb.project" and set(value) & set("/\\#?%:"):
        raise ConfigError(f"{path}={value!r} must have none of / \\ # ? % :")


def check_together(config: Mapping[str, Any]) -> None:
    """Options that must fit each other."""
    model, data, trainer = config["model"], config["data"], config["trainer"]
    for group, node in (("model", model), ("objective", config["objective"]), ("data", data), ("trainer", trainer)):
        if "_target_" not in node:
            raise ConfigError(f"{group} has no _target_: choose one with {group}=...")
    for group in ("callbacks", "logger"):
        for name, node in config[group].items():
            if node is not None and not (isinstance(node, Mapping) and "_target_" in node):
                raise ConfigError(f"{group}.{name}={node} is no part: it must have a _target_, or be null")
    if not config["name"] or config["name"].startswith(".") or "/" in config["name"] or "\0" in config["name"]:
        raise ConfigError(f"name={config['name']!r} must be usable as a folder's name")
    if ("EncoderDecoder" in model["_target_"]) != ("Restore" in data["_target_"]):
        raise ConfigError(
            "an encoder-decoder restores lines: choose both of model=encoder_decoder data=restore, or none"
        )
    if data["block_size"] > model["block_size"]:
        raise ConfigError(f"data.block_size={data['block_size']} is longer than model.block_size={model['block_size']}")
    if data["batch_size"] * data["block_size"] > MOST_TOKENS:
        raise ConfigError(
            f"data.batch_size={data['batch_size']} blocks of {data['block_size']} tokens in one step: "
            f"no machine holds more than {MOST_TOKENS:,} tokens"
        )
    if config["precision"] == "16-mixed" and config["optimizer"].get("fused"):
        raise ConfigError("precision=16-mixed does not go with a fused optimizer: add optimizer.fused=false")
    if config["objective"]["_target_"].endswith(".MultiToken") != model["_target_"].endswith(".MultiTokenGPT"):
        raise ConfigError("model=multi_token and objective=multi_token go together")
    if model.get("num_tokens", 1) > data["block_size"]:
        raise ConfigError(f"model.num_tokens={model['num_tokens']} is more than data.block_size={data['block_size']}")
    heads, dim = model.get("num_heads"), model.get("dim")
    if heads is not None and dim % heads:
        raise ConfigError(f"model.dim={dim} must divide by model.num_heads={heads}")
    kv_heads = (model.get("attention") or {}).get("num_kv_heads")
    if kv_heads is not None and heads % kv_heads:
        raise ConfigError(f"model.num_heads={heads} must divide by model.attention.num_kv_heads={kv_heads}")
    if "Rotary" in (model.get("positions") or {}).get("_target_", "") and (dim // heads) % 2:
        raise ConfigError(f"rotary positions need an even head_dim, not {dim // heads}: change model.num_heads")
    predicts_next = config["objective"]["_target_"].endswith((".NextToken", ".MultiToken"))
    if predicts_next and (model.get("attention") or {}).get("_target_", "").endswith(".BidirectionalAttention"):
        raise ConfigError("model/attention=bidirectional sees the tokens to be predicted: it needs objective=masked")
    if not predicts_next and model["_target_"].endswith(".Ngram"):
        raise ConfigError("model=ngram counts what follows: it needs objective=next_token")
    devices = trainer["devices"] * trainer.get("num_nodes", 1)
    micro = trainer["accumulate_grad_batches"]
    if data["batch_size"] % (devices * micro):
        raise ConfigError(
            f"data.batch_size={data['batch_size']} must divide by trainer.devices x "
            f"trainer.accumulate_grad_batches = {devices} x {micro}"
        )
    check_text(data)
    check_writable(Path(config["paths"]["run_dir"] or config["paths"]["log_dir"]))


def check_text(data: Mapping[str, Any]) -> None:
    """A local text is there, is UTF-8 and long enough to be cut into blocks. Very long ones are read later, once."""
    if data.get("path") is None or data.get("url") is not None:
        return
    from minigpt.data.corpus import find_text, read_text  # numpy takes a tenth of a second that --help does not need

    path = find_text(data["path"], data["data_dir"])
    if path.stat().st_size > LONG_TEXT:
        return
    length = sum(map(len, read_text(path)))
    if length < 4 * data["block_size"] or length < 20:
        raise ConfigError(f"{path} has {length} characters: too short for data.block_size={data['block_size']}")


def check_writable(directory: Path) -> None:
    """Raises ConfigError when a directory cannot be made or written."""
    existing = next(p for p in (directory.absolute(), *directory.absolute().parents) if p.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(f"{existing} cannot be written: name another folder with paths.log_dir=...")


def parts(node: Any, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every mapping with a `_target_`, with its dotted path."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield path, node
        for key, value in node.items():
            yield from parts(value, f"{path}.{key}" if path else str(key))


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every plain value, with its dotted path."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, node
