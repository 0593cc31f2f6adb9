"""The words of nanoGPT, Hugging Face, Lightning and others for our options, for suggestions."""

from minigpt.runs.commands import program

# What other frameworks say, where no single option is the answer.
EPOCHS = "the length of a run is counted in optimizer steps: trainer.max_steps=..."
FILE = "train on a text of your own with data=text data.path=FILE"
ELSEWHERE = {
    "ckpt_path": "resume=RUN_DIR continues a run; evaluate.py, generate.py and export.py take run=CHECKPOINT",
    "test": f"score a run with {program('evaluate')} run=latest",
    "train": f"{program('train')} always trains; {program('evaluate')} run=latest scores a run",
    "task_name": "name=... names a run",
    "extras": "the configuration is always printed, and tags=[...] is an option of its own",
    "optimized_metric": "sweeps are ranked by the best validation loss, in bits per character",
    **dict.fromkeys("epoch epochs max_epoch max_epochs n_epochs num_epochs num_train_epochs".split(), EPOCHS),
    **dict.fromkeys(
        "path text file input_file train_file text_file data_file data_path dataset_path corpus".split(), FILE
    ),
    "dataset": "data=... chooses a text: data=text data.path=FILE for one of your own",
    "wandb": "logger=... chooses where metrics go: csv, wandb, tensorboard, many_loggers or none",
    "wandb_log": "logger=csv leaves W&B out, and logger=wandb is the default",
    "num_workers": "there is nothing to set: batches are cut from memory-mapped tokens",
}
# Our options, and the words that nanoGPT, Hugging Face, Lightning and others have for them.
OTHER_WORDS = {
    "optimizer.lr": "lr learning_rate max_lr peak_lr base_lr init_lr",
    "optimizer.weight_decay": "weight_decay wd l2",
    "optimizer.betas": "betas adam_betas",
    "optimizer.momentum": "momentum",
    "scheduler.warmup_steps": "warmup warmup_steps warmup_iters num_warmup_steps lr_warmup_steps",
    "scheduler.min_lr_ratio": "min_lr_ratio min_lr",
    "scheduler": "lr_scheduler lr_scheduler_type lr_schedule schedule",
    "optimizer": "optim optimizer_name",
    "data.batch_size": (
        "batch_size bs batch train_batch_size global_batch_size per_device_train_batch_size micro_batch_size"
    ),
    "model.block_size": (
        "block_size context context_length context_size context_window ctx_len n_ctx seq_len seq_length "
        "sequence_length max_seq_len max_seq_length max_length n_positions max_position_embeddings block"
    ),
    "model.num_layers": "num_layers n_layer n_layers layers num_hidden_layers depth num_blocks n_blocks",
    "model.num_heads": "num_heads n_head n_heads heads num_attention_heads nhead",
    "model.dim": "dim n_embd n_embed d_model hidden_size embed_dim emb_dim embedding_dim model_dim width n_embedding",
    "model.dropout": "dropout dropout_rate drop_rate dropout_prob hidden_dropout_prob resid_pdrop p_dropout",
    "trainer.max_steps": (
        "max_steps max_step max_iters max_iter steps num_steps n_steps iters iterations num_iters train_steps "
        "num_train_steps num_training_steps total_steps"
    ),
    "trainer.val_every_n_steps": (
        "val_every_n_steps eval_interval eval_steps eval_every eval_freq val_interval val_every val_check_interval "
        "evaluation_interval validation_interval"
    ),
    "trainer.log_every_n_steps": "log_every_n_steps log_interval log_every logging_steps log_freq log_steps",
    "trainer.gradient_clip_val": "gradient_clip_val grad_clip clip_grad max_grad_norm gradient_clip clip",
    "trainer.accumulate_grad_batches": "accumulate_grad_batches gradient_accumulation_steps grad_accum",
    "trainer.devices": "devices gpus num_gpus n_gpus gpu num_devices n_devices nproc_per_node ngpus world_size",
    "trainer.accelerator": "accelerator device",
    "trainer.strategy": "strategy distributed_strategy",
    "trainer.num_nodes": "num_nodes nnodes nodes",
    "callbacks.checkpoints.every_n_steps": "save_steps save_every save_interval checkpoint_every checkpoint_interval",
    "callbacks.checkpoints.keep_last_n": "save_total_limit save_top_k keep_last_n",
    "data/tokenizer": "tokenizer tokenizer_name",
    "data.tokenizer.vocab_size": "vocab_size vocab n_vocab",
    "precision": "dtype torch_dtype mixed_precision amp fp16 bf16",
    "compile": "torch_compile",
    "seed": "random_seed manual_seed rng_seed seed_everything",
    "init_from": "finetune_from pretrained pretrained_model_name_or_path init_checkpoint",
    "name": "run_name exp_name experiment_name wandb_run_name job_name",
    "resume": "resume_from resume_from_checkpoint restore",
    "paths.log_dir": "log_dir out_dir output_dir save_dir logdir logging_dir",
    "paths.data_dir": "data_dir dataset_dir data_root",
    "run": "checkpoint ckpt ckpt_path model model_path model_dir model_name resume load weights",
    "prompt": "start text input context seed_text prefix",
    "prompt_file": "file input_file text_file promptfile",
    "max_new_tokens": "max_tokens max_length length num_tokens n_tokens tokens max_len num_new_tokens n new_tokens",
    "num_samples": "num_return_sequences samples n_samples batch_size",
    "num_beams": "beams beam_size beam_width n_beams beam",
    "temperature": "temp t",
    "top_k": "topk k",
    "top_p": "topp p nucleus",
    "output": "out to output_file file path",
    "device": "accelerator",
}
