"""Score a trained model: `python src/evaluate.py run=latest` repeats its validation loss."""

from typing import Any

from minigpt.cli import command


@command("evaluate")
def main(config: dict[str, Any]) -> float:
    from minigpt.config.packaged import typed_targets
    from minigpt.inference.evaluation import evaluate_runs

    return evaluate_runs(config, typed_targets())


if __name__ == "__main__":
    main()
