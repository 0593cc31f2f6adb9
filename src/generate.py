"""Let a trained model write: `python src/generate.py run=latest prompt="ROMEO:" temperature=0.8`."""

from typing import Any

from minigpt.config.door import door


@door("generate")
def main(config: dict[str, Any]) -> None:
    from minigpt.inference.load import find_trained
    from minigpt.inference.report import write

    trained = find_trained(config["run"], config["paths"]["log_dir"], config["device"], config["average"])
    write(trained, config)


if __name__ == "__main__":
    main()
