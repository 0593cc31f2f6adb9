"""Write a report of runs as one HTML page: `python src/report.py runs=latest`; `--help` lists the options."""

from typing import Any

from minigpt.cli import command


@command("report", uses_torch=False)
def main(config: dict[str, Any]) -> None:
    from pathlib import Path

    from minigpt.config.packaged import typed_targets
    from minigpt.report import load_writer

    paths = config["paths"]
    page = load_writer()(config["runs"], Path(paths["runs_dir"]), paths["data_dir"], typed_targets())
    print(f"report  {page}")


if __name__ == "__main__":
    main()
