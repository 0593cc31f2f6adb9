"""Export a trained model, to share it: `python src/export.py run=latest output=model.safetensors`."""

from typing import Any

from minigpt.cli import command


@command("export")
def main(config: dict[str, Any]) -> None:
    from minigpt.config.packaged import typed_targets
    from minigpt.inference.load import find_model
    from minigpt.inference.safetensors_export import export_safetensors

    trained = find_model(config["run"], config["paths"]["runs_dir"], "cpu", config["average_last_n"], typed_targets())
    export_safetensors(trained, config["output"])


if __name__ == "__main__":
    main()
