"""Score a trained model: `python src/evaluate.py run=latest` repeats its validation loss."""

from typing import Any

from minigpt.cli import command


@command("evaluate")
def main(config: dict[str, Any]) -> float:
    from minigpt.config.packaged import typed_targets
    from minigpt.inference.cli_output import evaluate_run
    from minigpt.inference.load import find_model

    runs_dir, trusted = config["paths"]["runs_dir"], typed_targets()
    trained = find_model(config["run"], runs_dir, config["device"], config["average_last_n"], trusted)
    return evaluate_run(trained, config)


if __name__ == "__main__":
    main()
