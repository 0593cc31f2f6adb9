"""Train a GPT: `python src/train.py model=small trainer.devices=2`; `--help` lists the options."""

from typing import Any

from minigpt.cli import command


@command("train")
def main(config: dict[str, Any]) -> float | None:
    import torch

    from minigpt.config.build import build, build_all, invocation
    from minigpt.devices import weight_copies
    from minigpt.inference.initial_model import find_initial_model
    from minigpt.runs.run import open_run
    from minigpt.training.callbacks import with_required
    from minigpt.training.fit import fit
    from minigpt.training.module import LanguageModel, checkpoint_metadata

    with open_run(config, *invocation()) as run:
        torch.manual_seed(config["seed"])
        initial = find_initial_model(config, run.plan)
        data = build(config["data"], **initial.data_options)
        objective = build(config["objective"])
        copies = weight_copies(config["trainer"])
        model = initial.build(build(config["model"]), data.corpus.tokenizer, objective, copies=copies)
        objective.check(model, block_size=data.block_size, seq2seq=data.seq2seq)
        module = LanguageModel(
            model,
            optimizer=build(config["optimizer"]),
            scheduler=build(config["scheduler"]),
            objective=objective,
            seed=config["seed"],
            compile=config["compile"],
            tokens_per_character=data.corpus.tokens_per_character,
            metadata=checkpoint_metadata(config, data),
        )
        callbacks = with_required(build_all(config["callbacks"], run=run))
        loggers = build_all(config["logger"], run=run)
        trainer = build(config["trainer"], precision=config["precision"], run=run, callbacks=callbacks, logger=loggers)
        return fit(trainer, module, data, run)


if __name__ == "__main__":
    main()
