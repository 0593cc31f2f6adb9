"""Mistakes of every kind: one clear line, exit code 2, nothing begun, nothing left behind."""

from pathlib import Path

import pytest

HERE = Path(__file__)

# (what is typed, what the line must say); {tmp} is a folder with the files that `world` makes.
TRAIN = [
    ("modle=nano", "did you mean 'model'"),
    ("model=nani", "did you mean 'nano'"),
    ("model=nan", "must be a string"),
    ("optimizer=adamx", "did you mean 'adam'"),
    ("model.dimm=64", "did you mean 'model.dim'"),
    ("optimizer.learning_rate=1", "optimizer.learning_rate"),
    ("trainer.max_step=5", "did you mean 'trainer.max_steps'"),
    ("+unknown.key=1", "'unknown'"),
    ("+seeed=1", "did you mean 'seed'"),
    ("++model.depth=3", "model.depth"),
    ("+trainer.gpus=1", "trainer.gpus"),
    ("+callbacks.mine=3", "callbacks.mine"),
    ("callbacks.samples.prompts=a", "did you mean '+callbacks.samples.prompt'"),
    ("model.attention.num_kv_heads=2", "with a plus"),
    ("model.dim=wide", "must be of type int"),
    ("trainer.max_steps=1.5", "must be of type int"),
    ("trainer.max_steps=", "must be of type int"),
    ("seed=one", "must be of type int"),
    ("compile=maybe", "must be of type bool"),
    ("optimizer.lr=high", "must be of type float"),
    ("model.attention=null", "must be a component: choose one with model/attention=..."),
    ("trainer=null", "must be a string"),
    ("model.dim=0", "at least 1"),
    ("model.num_layers=-1", "at least 1"),
    ("model.dropout=1", "less than 1"),
    ("trainer.max_steps=-5", "at least 1"),
    ("trainer.devices=0", "at least 1"),
    ("data.batch_size=0", "at least 1"),
    ("optimizer.lr=0", "more than 0"),
    ("optimizer.lr=-1", "more than 0"),
    ("+data.val_fraction=1.5", "at most 0.9"),
    ("seed=-1", "seed=-1 must be at least 0"),
    ("precision=bf17", "precision=bf17"),
    ("lr=0.1", "did you mean 'optimizer.lr'"),
    ("trainer.accelerator=tpu", "one of auto, cpu, gpu"),
    ("data=text", "data.path must be given"),
    ("data/augmentation=rename data.augmentation.probability=2", "probability=2 must be more than 0"),
    ("data/augmentation=rename +data.augmentation.seed=2", "seed is given by data.seed"),
    ("model/embedding=match model.embedding.num_candidates=0", "num_candidates=0 must be at least 1"),
    ("resume={tmp}/nowhere", "no run at"),
    ("resume=latest", "no run in"),
    ("model=nano,bigram", "add -m"),
    ("model.dim=[1", "cannot read the option"),
    ("model", "cannot read the option"),
    ("--modell nano", "unrecognized arguments"),
    ("model._target_=minigpt.model.gpt.GTP", "did you mean 'GPT'"),
    ("model._target_=nowhere.Model", "there is no nowhere.Model"),
    ("logger.wandb.mode=sometimes", "one of auto, online"),
    ("experiment=record_breaking", "no choice 'record_breaking'"),
    ("paths.run_dir={tmp}/a-file/run", "cannot be written"),
    ("~model.dim", "model.dim must be given"),
    ("resume=5", "no run at 5"),
    ("hparams_search=lecture", "hparams_search=lecture is for a sweep: add -m"),
    ("hydra.launcher.n_jobs=2", "add -m"),
    ("hydra/launcher=basic", "add -m"),
    ("batch_size=8", "did you mean 'data.batch_size'"),
    ("--lr=0.1", "options have no dashes: optimizer.lr=..."),
    ("trainer.precision=bf16", "set that instead, precision=..."),
    ("data=synthetic data.path=my.txt", "data=text data.path=FILE"),
    ("model/positions=[alibi,learned]", "choose one of them"),
    ("+model.attention.dropout=0.5", "is given by model.attention_dropout"),
    ("model._partial_=no", "_partial_='no' true or false"),
    ("model.num_layers=100000", "at most 1000"),
    ("+trainer.fast_dev_run=99999999999999999999", "64 bits"),
    ("--config-dir={tmp}/nowhere", "nowhere"),
    ("--experimental-rerun={tmp}/a-file", "unpickles a file"),
    ("--cfg=nonsense", "invalid choice: 'nonsense'"),
    ("ckpt_path=a.ckpt", "resume=RUN_DIR"),
    ("test=true", "src/evaluate.py"),
    ("task_name=a", "name=..."),
    ("extras.print_config=true", "tags=[...]"),
    ("tags=a", "must be of type list"),
    ("optimizer=adamw +optimizer.capturable=3", "must be of type bool"),
    ("trainer.devices=all", "one of auto"),
    ("hydra/launcher=nani", "no hydra/launcher 'nani'"),
    ("optimizer.lr=nan", "optimizer.lr=nan must be a finite number"),
    ("optimizer.lr=1e300", "float32 overflows beyond"),
    ("optimizer=adamw optimizer.betas=[0.9]", "must be a list of 2 values"),
    ("+optimizer.betas=[0.9,1.5]", "less than 1"),
    ("trainer.max_steps=4611686018427387904", "at most 1e+10"),
    ("trainer.timeout_s=1e18", "at most 1e+09"),
    ("+callbacks.samples.temperature=1e-40", "float32 underflows below"),
    ("+trainer.limit_val_batches=0.1", "of type int"),
    ("-m model=nano,nani", "did you mean 'nano'"),
    ("-m model.dim=128,0", "model.dim=0"),
    ("-m experiment=glob(nothing*)", "matches nothing"),
]
TRAIN_LATER = [  # needs the components themselves, or the text, to tell
    ("optimizer=adamw data=synthetic trainer.strategy=horovod", "horovod"),
    ("data.batch_size=100000000", "no machine holds"),
    ("callbacks=early_stopping callbacks.early_stopping.mode=online data=synthetic", "online"),
    ("logger.wandb.project=a/b data=synthetic", "must have none of"),
    ("name=../outside", "folder's name"),
    ("data=synthetic data.block_size=128", "longer than model.block_size=64"),
    ("data=text data.path={tmp}/missing.txt", "no text at"),
    ("data=text data.path={tmp}/empty.txt", "0 characters"),
    ("data=text data.path={tmp}/latin.txt", "not UTF-8"),
    ("data=text data.path={tmp}", "which is not a file"),
    ("data.path={tmp}/missing.txt", "no text at"),
    ("data=denoising model=encoder_decoder data.path={tmp}/missing.txt", "no text at"),
    ("data.path={tmp}/empty.txt", "0 characters"),
    ("data=synthetic data.batch_size=25 trainer.devices=2", "data.batch_size=25 must divide"),
    ("data=synthetic data.batch_size=6 trainer.accumulate_grad_batches=4", "must divide"),
    ("data=synthetic model.num_heads=3", "model.dim=128 must divide by model.num_heads=3"),
    (
        "data=synthetic model/attention=gqa model.attention.num_kv_heads=3",
        "must divide by model.attention.num_kv_heads=3",
    ),
    ("data=synthetic model.num_heads=128", "even head_dim"),
    ("model.block_size=5000 data=text data.path={tmp}/short.txt", "too short for data.block_size=5000"),
    ("data=synthetic objective=masked model=ngram", "needs objective=next_token"),
    ("data=synthetic model=encoder_decoder", "model=encoder_decoder data=denoising"),
    ("data=synthetic trainer.devices=64 data.batch_size=64", "trainer.devices=64"),
    ("data=synthetic precision=16-mixed trainer.accelerator=cpu", "needs a GPU"),
    ("model.block_size=200000 data=synthetic data.num_chars=5000", "too short for block_size"),
    ("data=synthetic +trainer.max_epochs=3", "given by trainer.max_steps"),
    ("model.dim=4000000 data=synthetic", "lower model.dim"),
    ("optimizer=sgd optimizer.momentum=0 data=synthetic", "Nesterov"),
    ("data=synthetic +trainer.profiler=nonsense", "profiler"),
    ("data=synthetic data.num_chars=5000 data/tokenizer=wordpiece data.tokenizer.vocab_size=4096", "must be at most"),
    ("data=text data.path={tmp}/short.txt model.block_size=16 data/augmentation=rename", "finds no names"),
    ("data=synthetic model/mlp=moe model.mlp.top_k=9", "not top_k=9"),
    ("data=synthetic data.num_chars=9000 callbacks=denoising", "needs model=encoder_decoder data=denoising"),
    ("data=synthetic data.num_chars=9000 +trainer.limit_train_batches=0.1", "set by miniGPT itself"),
    ("data=synthetic data.num_chars=9000 +trainer.max_time=xyz", "xyz"),
    ("data=synthetic data.num_chars=9000 trainer.devices=[0,0]", "each to be used once"),
    ("data=synthetic data.num_chars=9000 model.dim=2147483648", "more than 2^63 bytes"),
    ("data=synthetic data.num_chars=9000 data.batch_size=4000000", "a training step of 256,000,000 tokens needs about"),
    (
        "data=synthetic data.num_chars=9000 callbacks=early_stopping callbacks.early_stopping.monitor=loss",
        "cannot monitor 'loss'",
    ),
]
GENERATE = [
    ("", "run must be given"),
    ("run={tmp}/nowhere", "no run at"),
    ("run={tmp}/short.txt", "not a checkpoint"),
    ("run={tmp}/nowhere.ckpt", "no checkpoint at"),
    ("run=https://example.org/model.ckpt", "is an address"),
    ("run=latest temperature=-1", "at least 0"),
    ("run=latest temperature=nan", "a finite number"),
    ("run=latest top_p=1.5", "at most 1"),
    ("run=latest min_p=1.5", "at most 1"),
    ("run=latest min_p=-0.1", "at least 0"),
    ("run=latest repetition_penalty=0", "more than 0"),
    ("run=latest top_k=0", "at least 1"),
    ("run=latest format=yaml", "one of text, json"),
    ("run=latest stop=[1]", "of type str"),
    ("run={tmp}", "no run at"),
    ("run=latest max_new_tokens=0", "at least 1"),
    ("run=latest promt=a", "did you mean 'prompt'"),
    ("run=latest max_tokens=3", "did you mean 'max_new_tokens'"),
    ("model=nano run=latest", "an option of train.py"),
]


@pytest.fixture
def world(tmp_path):
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "short.txt").write_text("All the world's a stage. " * 20)
    (tmp_path / "latin.txt").write_bytes("café au lait".encode("latin-1") * 20)
    (tmp_path / "a-file").write_text("")
    return tmp_path


def assert_refused(done, says: str, world: Path) -> None:
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ") and says in lines[0]
    left = {p.relative_to(world).parts[0] for p in world.rglob("*") if p.is_file()}
    assert left <= {"empty.txt", "short.txt", "latin.txt", "a-file", "data"}
    assert not (world / "logs" / "runs").exists() and not (world / "a-file").is_dir()
    assert not any((world / "logs").rglob("multirun.yaml"))


def refused(cli, world, script, typed, says):
    assert_refused(cli(script, *typed.format(tmp=world).split()), says, world)


@pytest.mark.parametrize(("typed", "says"), TRAIN + TRAIN_LATER)
def test_train_refuses(cli, world, typed, says):
    refused(cli, world, "train.py", typed, says)


@pytest.mark.parametrize(("typed", "says"), GENERATE)
def test_generate_refuses(cli, world, typed, says):
    refused(cli, world, "generate.py", typed, says)


def test_evaluate_refuses(cli, world):
    refused(cli, world, "evaluate.py", "run={tmp}/nowhere", "no run at")
    refused(cli, world, "evaluate.py", "run=latest precison=auto", "did you mean 'precision'")
    refused(cli, world, "evaluate.py", "run=latest protocol=nanogpt", "one of exact, random, sliding, dynamic")
    refused(cli, world, "evaluate.py", "run=latest,{tmp}/nowhere output={tmp}/a-file", "a-file exists already")
