"""The formats of an export, by the name of what is written."""

from pathlib import Path

from minigpt.inference.hugging_face_export import export_folder
from minigpt.inference.load import LoadedModel
from minigpt.inference.safetensors_export import export_safetensors

OTHER_SUFFIXES = (".bin", ".ckpt", ".gguf", ".json", ".onnx", ".pt", ".pth", ".zip")


def export_model(loaded: LoadedModel, output: str) -> None:
    """Write a model to `NAME.safetensors`, one file, or to any other name, a folder for Hugging Face's transformers.

    Raises:
        ValueError: the name is that of another kind of file, or see `export_safetensors` and `export_folder`.
    """
    suffix = Path(output).suffix.lower()
    if suffix in OTHER_SUFFIXES:
        raise ValueError(f"output={output} must end in .safetensors, or be a folder for transformers, without {suffix}")
    (export_safetensors if suffix == ".safetensors" else export_folder)(loaded, output)
