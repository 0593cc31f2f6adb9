"""Look inside a trained model in the browser: `python src/playground.py run=latest`; `--help` lists the options."""

from typing import Any

from minigpt.cli import command


@command("playground")
def main(config: dict[str, Any]) -> None:
    from minigpt.config.packaged import typed_targets
    from minigpt.playground import load_server

    load_server()(config, typed_targets())


if __name__ == "__main__":
    main()
