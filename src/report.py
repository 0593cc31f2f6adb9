"""Write a report of runs as one HTML page: `python src/report.py runs=latest`; `--help` lists the options."""

from typing import Any

from minigpt.cli import command


@command("report", uses_torch=False)
def main(config: dict[str, Any]) -> None:
    from pathlib import Path

    from minigpt.report import load_writer

    page = load_writer()(config["runs"], Path(config["paths"]["runs_dir"]))
    print(f"report  {page}")


if __name__ == "__main__":
    main()
