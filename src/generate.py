"""Generate text with a trained model: `python src/generate.py run=latest prompt="ROMEO:" temperature=0.8`."""

from typing import Any

from minigpt.cli import command


@command("generate")
def main(config: dict[str, Any]) -> None:
    from minigpt.config.packaged import typed_targets
    from minigpt.inference.load import find_model
    from minigpt.inference.text_generation import generate_text

    runs_dir, trusted = config["paths"]["runs_dir"], typed_targets()
    trained = find_model(config["run"], runs_dir, config["device"], config["average_last_n"], trusted)
    generate_text(trained, config)


if __name__ == "__main__":
    main()
