"""Train a GPT: `python src/train.py model=small trainer.devices=2`; `--help` shows what can be chosen."""

from typing import Any

from minigpt.config.door import door


@door("train")
def main(config: dict[str, Any]) -> float | None:
    import torch

    from minigpt.config.build import build, build_all, invocation
    from minigpt.model.size import build_within_memory
    from minigpt.runs.run import open_run
    from minigpt.training.fit import fit
    from minigpt.training.module import LanguageModel, describe

    torch.manual_seed(config["seed"])
    data = build(config["data"])
    objective = build(config["objective"])
    vocab_size = data.corpus.tokenizer.vocab_size + objective.extra_tokens
    model = build_within_memory(build(config["model"]), vocab_size=vocab_size, copies=2)
    trainer = build(config["trainer"], precision=config["precision"])
    module = LanguageModel(
        model,
        optimizer=build(config["optimizer"]),
        scheduler=build(config["scheduler"]),
        objective=objective,
        seed=config["seed"],
        compile=config["compile"],
        tokens_per_character=data.corpus.tokens_per_character,
        description=describe(config, data, trainer.precision),
    )
    callbacks = build_all(config["callbacks"])
    run = open_run(config, module.description["fingerprint"], module.checkpoint_bytes, *invocation())
    trainer.callbacks.extend(callbacks)
    trainer.loggers = build_all(config["logger"], run=run)
    return fit(trainer, module, data, run, config)


if __name__ == "__main__":
    main()
