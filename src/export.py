"""Export a trained model: `python src/export.py run=latest output=FOLDER`, or `output=FILE.safetensors`."""

from typing import Any

from minigpt.cli import command


@command("export")
def main(config: dict[str, Any]) -> None:
    from minigpt.config.packaged import typed_targets
    from minigpt.inference.export_formats import export_model
    from minigpt.inference.load import find_model

    trained = find_model(config["run"], config["paths"]["runs_dir"], "cpu", config["average_last_n"], typed_targets())
    export_model(trained, config["output"])


if __name__ == "__main__":
    main()
