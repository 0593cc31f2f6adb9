"""Write a trained model as one safetensors file, to share: `python src/export.py run=latest to=model.safetensors`."""

from typing import Any

from minigpt.config.door import door


@door("export")
def main(config: dict[str, Any]) -> None:
    from minigpt.inference.export import export_safetensors
    from minigpt.inference.load import find_trained

    export_safetensors(find_trained(config["run"], config["paths"]["log_dir"], "cpu", config["average"]), config["to"])


if __name__ == "__main__":
    main()
