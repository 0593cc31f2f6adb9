"""Score a trained model: `python src/evaluate.py run=latest` repeats its validation loss."""

from typing import Any

from minigpt.config.door import door


@door("evaluate")
def main(config: dict[str, Any]) -> float:
    from minigpt.inference.load import find_trained
    from minigpt.inference.report import evaluate_run

    return evaluate_run(
        find_trained(config["run"], config["paths"]["log_dir"], config["device"], config["average"]), config
    )


if __name__ == "__main__":
    main()
